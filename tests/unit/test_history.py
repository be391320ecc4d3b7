"""The minutes of the outbox's history, the troubles in it, and the story of an event."""

from __future__ import annotations

from typing import Any

import pytest

from inngest_outbox.console.operations.sampler import Minute, sample_of
from inngest_outbox.console.operations.timeline import Kind, Moment, Trouble, timeline, troubles
from inngest_outbox.console.operations.views import Movement, stats_view
from inngest_outbox.outbox.figures import MINUTE_MS, Sample, Stats
from inngest_outbox.outbox.model import DeliveryRecord, Note, Row, State
from tests.support.made_row import made_row
from tests.support.memory_outbox import HEALTHY_DELIVERY

NOON = 1_795_564_800_000


def seen(
    waiting: int, state: str = "healthy", reason: str = "", rate: float = 0.0, dead: int = 1
) -> Movement:
    record = DeliveryRecord(state, reason, 1, 0, 0.0, 0)
    view = stats_view(Stats(waiting, 0, 0, dead, None, None, record, 0, None), serving=True)
    return Movement(view, rate, 2 * rate)


def test_a_minute_is_summed_up_when_it_is_over() -> None:
    minute = Minute()
    assert minute.add(NOON, seen(3)) is None
    assert minute.add(NOON + 20_000, seen(9, rate=1.0, dead=5)) is None
    assert minute.add(NOON + 50_000, seen(4, rate=2.0, dead=3)) is None
    over = minute.add(NOON + MINUTE_MS, seen(0))
    assert (over.at_ms, over.waiting, over.dead) == (NOON, 9, 3)
    assert over.accepted_rate == round((20 * 1.0 + 30 * 2.0) / 110, 3)
    assert over.delivered_rate == round(2 * (20 * 1.0 + 30 * 2.0) / 110, 3)
    minute.add(NOON + MINUTE_MS + 30_000, seen(0, rate=3.0))
    following = minute.add(NOON + 2 * MINUTE_MS, seen(0))
    assert (following.waiting, following.accepted_rate) == (0, 30 * 3.0 / 40)
    assert following.delivered_rate == 2 * 30 * 3.0 / 40
    minute.add(NOON + 10 * MINUTE_MS, seen(5))  # minutes without a look are not made up
    assert minute.add(NOON + 11 * MINUTE_MS, seen(5)).at_ms == NOON + 10 * MINUTE_MS


def test_a_minute_keeps_its_worst_state_and_the_reason_of_it() -> None:
    minute = Minute()
    minute.add(NOON, seen(1))
    minute.add(NOON + 1_000, seen(1, "backing_off", "503"))
    minute.add(NOON + 2_000, seen(1, "recovering", "it took one"))
    minute.add(NOON + 3_000, seen(1, "backing_off", "502"))
    over = minute.add(NOON + MINUTE_MS, seen(1))
    assert (over.state, over.reason) == ("backing_off", "503")


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (("recovering", "paused"), "paused"),
        (("paused", "backing_off"), "backing_off"),
        (("misconfigured", "backing_off"), "misconfigured"),
        (("misconfigured", "of a later version"), "of a later version"),
        (("healthy", "recovering"), "recovering"),
    ],
)
def test_states_of_delivery_have_an_order(states: tuple[str, str], worst: str) -> None:
    minute = Minute()
    for at, state in enumerate(states):
        minute.add(NOON + at, seen(1, state, f"{state} since noon"))
    summed = minute.sum_up()
    assert (summed.state, summed.reason) == (worst, f"{worst} since noon")


def test_a_sample_counts_what_waits_and_what_is_sent() -> None:
    view = stats_view(
        Stats(3, 4, 0, 1, None, None, HEALTHY_DELIVERY, 0, None, sent=5), serving=True
    )
    sample = sample_of(NOON, Movement(view, 1.0, 2.0))
    assert sample == Sample(NOON, 12, 1, 1.0, 2.0, "healthy", "")


def test_a_sample_keeps_the_beginning_of_a_long_reason() -> None:
    words = "a" * 300
    assert sample_of(NOON, seen(1, "backing_off", words + "b")).reason == words


def test_a_clock_that_goes_back_makes_no_rate_negative() -> None:
    minute = Minute()
    for at_ms in (NOON + MINUTE_MS, NOON + MINUTE_MS - 1_000):
        over = minute.add(at_ms, seen(1, rate=2.0))
    assert (over.accepted_rate, over.delivered_rate) == (2.0, 4.0)
    over = minute.add(NOON + MINUTE_MS, seen(1, rate=2.0))
    assert (over.at_ms, over.waiting, over.accepted_rate) == (NOON, 1, 0.0)


def sample(minute: int, state: str, reason: str = "") -> Sample:
    return Sample(NOON + minute * MINUTE_MS, 0, 0, 0.0, 0.0, state, reason)


def test_minutes_of_the_same_trouble_are_one() -> None:
    states = ["healthy", "backing_off", "backing_off", "recovering", "healthy", "backing_off"]
    found = troubles([sample(at, state, f"r{at}") for at, state in enumerate(states)])
    assert found == [
        Trouble(NOON + 1 * MINUTE_MS, NOON + 3 * MINUTE_MS, "backing_off", "r1"),
        Trouble(NOON + 3 * MINUTE_MS, NOON + 4 * MINUTE_MS, "recovering", "r3"),
        Trouble(NOON + 5 * MINUTE_MS, NOON + 6 * MINUTE_MS, "backing_off", "r5"),
    ]


@pytest.mark.parametrize(("minutes", "found"), [((), 0), ((0,), 1), ((0, 4, 8), 1), ((0, 5), 2)])
def test_troubles_five_minutes_apart_are_two(minutes: tuple[int, ...], found: int) -> None:
    assert len(troubles([sample(minute, "paused") for minute in minutes])) == found


def row(state: State = State.DEAD, **changes: object) -> Row:
    told = {
        "attempts": 3,
        "sends": 2,
        "isolated": True,
        "accepted_at_ms": NOON,
        "first_sent_at_ms": NOON + 1_250,
        "settled_at_ms": NOON + 9_000,
        "reason": "rejected",
        "detail": "words",
        "history": (Note(NOON + 4_000, "refused: HTTP 500"),),
    }
    return made_row(state, **{**told, **changes})


OUTAGE = Trouble(NOON - MINUTE_MS, NOON + 2 * MINUTE_MS, "backing_off", "503")


def test_a_story_runs_from_the_acceptance_to_the_end_in_the_order_of_time() -> None:
    refused = Note(NOON + 4_000, "refused: HTTP 500")
    last = Note(NOON + 9_000, "refused: no")  # its death is of the same moment
    story = timeline(row(history=(refused, last)), [OUTAGE])
    assert [one.kind for one in story] == [
        Kind.ACCEPTED,
        Kind.TROUBLE,
        Kind.CLAIMED,
        Kind.NOTE,
        Kind.NOTE,
        Kind.DEAD,
    ]
    assert story[1].words == "Delivery was backing off: 503, for 2 min"
    assert (story[3].words, story[3].after_seconds) == ("Refused: HTTP 500", 4.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": State.PENDING, "due_in_seconds": 90.0}, "Due in 1.5 min"),
        ({"state": State.PENDING, "due_in_seconds": 0.0}, "Due now"),
        (
            {"state": State.DELIVERING, "lease_in_seconds": 31.0},
            "Being sent; without an answer it is due again in 31 s",
        ),
        (
            {"state": State.SENT, "settled_at_ms": NOON},
            "Inngest has answered and is asked until it holds the event",
        ),
    ],
)
def test_what_comes_next_is_last(changes: dict[str, Any], words: str) -> None:
    assert timeline(row(**{"settled_at_ms": None, **changes}), [OUTAGE]) == [
        Moment(Kind.ACCEPTED, "Accepted, and synced to disk", NOON),
        Moment(Kind.TROUBLE, "Delivery was backing off: 503, for 2 min", NOON),
        Moment(Kind.CLAIMED, "Sent to Inngest for the first time", NOON + 1_250, 1.25),
        Moment(Kind.NOTE, "Refused: HTTP 500", NOON + 4_000, 4.0),
        Moment(Kind.NEXT, words),
    ]


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"state": State.DELIVERED}, (Kind("delivered"), "Delivered: Inngest has it")),
        ({}, (Kind.DEAD, "Dead: rejected")),
    ],
)
def test_an_event_that_was_never_sent_has_its_acceptance_and_its_end(
    changes: dict[str, Any], end: tuple[Kind, str]
) -> None:
    found = row(**{"first_sent_at_ms": None, "sends": 0, "history": (Note(0, "late"),), **changes})
    assert timeline(found) == [
        Moment(Kind.ACCEPTED, "Accepted, and synced to disk", NOON),
        Moment(Kind.NOTE, "Late", 0),
        Moment(*end, NOON + 9_000, 9.0),
    ]


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "words"),
    [
        (-10 * MINUTE_MS, 30_000, "Delivery was paused, for 1 min"),
        (30_000, 210_000, "Delivery was paused, for 3 min"),
    ],
)
def test_a_trouble_begins_with_the_event_and_lasts_a_minute_at_least(
    from_ms: int, until_ms: int, words: str
) -> None:
    trouble = Trouble(NOON + from_ms, NOON + until_ms, "paused", "")
    [told] = [one for one in timeline(row(), [trouble]) if one.kind is Kind.TROUBLE]
    assert (told.words, told.at_ms) == (words, NOON + max(0, from_ms))
    assert told.after_seconds == (from_ms / 1000 if from_ms > 0 else None)


def test_of_many_troubles_the_first_and_the_last_are_told() -> None:
    many = [
        Trouble(NOON + at * MINUTE_MS, NOON + (at + 1) * MINUTE_MS, "paused", str(at))
        for at in range(1_100)
    ]
    told = [one for one in timeline(row(), many) if one.kind is Kind.TROUBLE]
    numbers = [*range(10), *range(1_090, 1_100)]
    words = [f"Delivery was paused: {one}, for 1 min" for one in numbers]
    assert [one.words for one in told] == [
        *words[:10],
        "1,080 more troubles of delivery",
        *words[10:],
    ]
    for count in (20, 21):  # 21 are 20 and a sentence about the other
        told = [one for one in timeline(row(), many[:count]) if one.kind is Kind.TROUBLE]
        assert len(told) == count
