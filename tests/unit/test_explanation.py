from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from inngest_outbox.console.operations.explain import explain, explain_name
from inngest_outbox.outbox.model import DeliveryRecord, Note, Row, State
from inngest_outbox.runs.figures import NameView
from tests.support.made_row import made_row

NOW = 1_795_559_419_447
HOUR_MS = 3_600_000
OPEN = DeliveryRecord("healthy", "", 500, 0, 0.0, 0)
CLOSED = DeliveryRecord("backing_off", "503 busy", 1, 4, 2.1, 0)
REFUSING = msgspec.structs.replace(CLOSED, state="misconfigured", reason="401 not found")
RECOVERING = msgspec.structs.replace(CLOSED, state="recovering", window=8)
PAUSED = msgspec.structs.replace(REFUSING, paused_by="ada")


def row(state: State = State.PENDING, **changes: object) -> Row:
    return made_row(state, accepted_at_ms=NOW - 5000, **changes)


def dead(attempts: int, reason: str | None, **changes: object) -> Row:
    given = {"settled_at_ms": NOW, "attempts": attempts, "reason": reason, **changes}
    return row(State.DEAD, **given)


NOW_WORDS = "2026-11-24 22:30:19 UTC"
REFUSED = (Note(1, "busy"), Note(2, "refused: no"))
LEASED = row(State.DELIVERING, lease_in_seconds=31.0)
OWN_TURN = "it is due and waits for its turn to be sent alone"
TRIED = "one event is tried in 2.1 s and the rest follow"
TURN = "events are sent 8 at a time; it is sent when its turn comes"
REMOVED = "the row is removed after the retention"
ASKED = (
    "a running service asks it until it holds the event, and sends it again under the same ids if "
    "Inngest loses it"
)
STAYS = (
    "it stays until `outbox replay e-1 --yes` sends it again under the same id or "
    "`outbox discard e-1 --yes` removes it"
)
UNREAD = "its stored payload can't be read any more"
TROUBLE = "every try to send it met trouble while others passed"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            row(State.DELIVERED, settled_at_ms=NOW, sends=2, first_sent_at_ms=NOW - 1000),
            f"Inngest took it at {NOW_WORDS}, 5 s after its acceptance, the answer to send 2; "
            + REMOVED,
        ),
        (
            row(State.DELIVERED, settled_at_ms=NOW - 6000, sends=1),
            f"Inngest took it at 2026-11-24 22:30:13 UTC, 0 s after its acceptance; {REMOVED}",
        ),
        (
            row(State.DELIVERED),
            f"Inngest took it at 2026-11-24 22:30:14 UTC, 0 s after its acceptance; {REMOVED}",
        ),
        (row(State.SENT), f"Inngest has answered; {ASKED}"),
        (
            dead(3, "rejected", detail="no name"),
            f"Inngest refused it (no name) after 3 attempts, at {NOW_WORDS}; {STAYS}",
        ),
        (
            dead(1, "too_large"),
            f"Inngest takes no event of this size at its only attempt, at {NOW_WORDS}; {STAYS}",
        ),
        (dead(2, "undeliverable"), f"{TROUBLE} after 2 attempts, at {NOW_WORDS}; {STAYS}"),
        (
            dead(0, "payload_damaged", detail="no name", settled_at_ms=None),
            f"{UNREAD} (no name) after 0 attempts, at 2026-11-24 22:30:14 UTC; {STAYS}",
        ),
        (
            dead(1, "of an older version", detail="v 0"),
            f"of an older version (v 0) at its only attempt, at {NOW_WORDS}; {STAYS}",
        ),
    ],
)
def test_a_row_says_why_it_is_where_it_is(given: Row, words: str) -> None:
    """Whatever the state of delivery, and with a service or without."""
    for of, serving in product((OPEN, CLOSED, REFUSING, RECOVERING, PAUSED), (True, False, None)):
        assert explain(given, of, now_ms=NOW, serving=serving) == f"{given.state}: {words}."


BEHIND = {
    OPEN: "",
    RECOVERING: "",
    CLOSED: f"Inngest is in trouble (503 busy); {TRIED} when it passes",
    REFUSING: f"Inngest refuses our configuration (401 not found); repair it; {TRIED}",
}
RESUMED = {True: "after `outbox resume`", False: "after somebody resumes delivery"}
STOPPED = "no service runs on this outbox"


@pytest.mark.parametrize("delivery", BEHIND)
@pytest.mark.parametrize("pause", [None, "", "an upgrade"])
@pytest.mark.parametrize("serving", [True, False, None])
@pytest.mark.parametrize("commands", [True, False])
def test_what_waits_says_all_that_holds_it_up(
    delivery: DeliveryRecord, pause: str | None, *, serving: bool | None, commands: bool
) -> None:
    behind, resumed = BEHIND[delivery], RESUMED[commands]
    by = "delivery is paused by ada" + (" (an upgrade)" if pause else "")
    if pause is not None:
        delivery = msgspec.structs.replace(delivery, paused_by="ada", pause_reason=pause)
    held_up = {
        (False, False): behind,
        (False, True): f"{by}; it is sent {resumed}",
        (True, False): f"{STOPPED}; it is sent when one starts",
        (True, True): f"{STOPPED} and {by}; it is sent when one starts and {resumed}",
    }[serving is False, pause is not None]
    name = explain_name("a/b", None, delivery, serving=serving, commands=commands)
    waits = [f"A pending a/b event waits: {held_up}."] if held_up else []
    assert name == [*waits, UNSEEN if commands else f"{NONE_SEEN}."]
    again = "when one starts" + (f" and {resumed}" if pause is not None else "")
    told = explain(LEASED, delivery, now_ms=NOW, serving=serving, commands=commands)
    assert told == (
        f"delivering: its service ended while it was being sent; it is sent again {again}."
        if serving is False
        else "delivering: it is being sent; without an answer it is due again in 31 s."
    )
    for due, alone, sends, history in product((0.0, 2.5), (False, True), (0, 1), ((), REFUSED)):
        because = " (refused: no)" if history else ""
        later = f"it is sent{' again' if sends else ''}{', alone,' if alone else ''} in 2.5 s"
        recovers = delivery.state == "recovering"
        free = (
            f"Inngest recovers (503 busy), {TURN}"
            if recovers
            else "it is due and is sent with the next batch"
        )
        words = f"{OWN_TURN}{because}" if alone else free
        if held_up:
            words = f"it is due in 2.5 s, and {held_up}" if due else held_up
        elif due:
            words = later + because
        given = row(due_in_seconds=due, isolated=alone, sends=sends, history=history)
        told = explain(given, delivery, now_ms=NOW, serving=serving, commands=commands)
        assert told == f"pending: {words}."


@pytest.mark.parametrize(
    ("state", "delivery", "serving"),
    [
        (State.PENDING, OPEN, True),
        (State.PENDING, CLOSED, True),
        (State.PENDING, PAUSED, True),
        (State.PENDING, OPEN, False),
        (State.DELIVERING, OPEN, True),
        (State.DELIVERING, OPEN, False),
        (State.DEAD, OPEN, True),
    ],
)
def test_a_row_that_may_have_left_long_ago_says_that_it_may_run_twice(
    state: State, delivery: DeliveryRecord, *, serving: bool
) -> None:
    old = row(state, first_sent_at_ms=NOW - 26 * HOUR_MS)
    known = explain(row(state), delivery, now_ms=NOW, serving=serving).removesuffix(".")
    assert explain(old, delivery, now_ms=NOW, serving=serving) == (
        f"{known}; it may first have been sent 1.1 d ago and Inngest forgets an id after 24 h, so "
        "another send may run its functions a second time."
    )


@pytest.mark.parametrize(
    ("state", "hours"), [(State.DEAD, 24), (State.DELIVERED, 26), (State.SENT, 26)]
)
def test_a_row_that_left_within_the_day_or_is_done_says_nothing_of_it(
    state: State, hours: int
) -> None:
    fresh = row(state, first_sent_at_ms=NOW - hours * HOUR_MS)
    assert "second time" not in explain(fresh, OPEN, now_ms=NOW)


def test_a_page_with_buttons_names_no_command() -> None:
    assert explain(row(State.DEAD), PAUSED, now_ms=NOW, commands=False).endswith(
        "; it stays until a replay sends it again under the same id or somebody removes it."
    )
    view = NameView(name="a/b", expected=False, **ONE_OF_TWO, dead=3)
    told = explain_name("a/b", view, OPEN, serving=True, commands=False)
    assert told == [AT_ONCE, of_sampled(1, 2), STARTS_AT_ONCE, BOTH, QUEUED, NO_ALARM]
    view = NameView(name="a/b", expected=False, dead=3)
    assert explain_name("a/b", view, OPEN, serving=True, commands=False) == [f"{NONE_SEEN}."]


NONE_SEEN = "No event of this name was seen to be held lately, or Inngest can't be asked for runs"
UNSEEN = f"{NONE_SEEN}: `python -m inngest_outbox check` says whether it can."
PACE = (
    "Inngest holds about 12.25 events a second. An event is held 0.25 s after its acceptance in "
    "the median, 95 % within 3 s."
)
STARTS = "The first run starts 0.4 s after its event is held in the median, 95 % within 1.5 min."
NO_TIME = {
    "held_median_seconds": 0.0,
    "held_p95_seconds": 0.0,
    "start_median_seconds": 0.0,
    "start_p95_seconds": 0.0,
}
AT_ONCE = PACE.replace("12.25", "0").replace("0.25", "0").replace("3 s", "0 s")
STARTS_AT_ONCE = STARTS.replace("0.4", "0").replace("1.5 min", "0 s")
QUEUED = (
    "A queued run has not started: its function is paused, or it waits for its concurrency or "
    "throttle."
)
MISSING = (
    f"No event since {NOW_WORDS} has a run, and it should: see that the app is synced, the "
    "function is not paused, and its trigger has this name."
)
SOME = (
    "A function that debounces, batches or has a rate limit runs for some of its events only; "
    "otherwise those were held while the app was not synced or the function paused."
)
ONE_DEAD = "1 is dead: `outbox list --state dead --name a/b` shows why."
NONE_EXPECTED = "None is expected: no event of this name had a run, and `expects_run` is not set."
ONE_OF_TWO: dict[str, Any] = {
    **NO_TIME,
    "sampled": 2,
    "with_run": 1,
    "ran": 1,
    "outcomes": {"completed": 1, "queued": 1},
}
BOTH = "Of the runs are 1 completed, 1 queued."
NO_ALARM = "Its functions may leave an event without a run, so this raises no alarm."


def of_sampled(with_run: int, sampled: int) -> str:
    return f"{with_run} of {sampled} events that were asked about within 15 minutes have a run."


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, [UNSEEN]),
        ({"dead": 1}, [UNSEEN, ONE_DEAD]),
        (
            {"sampled": 2, "with_run": 2, "ran": 2, "dead": 2000},
            [of_sampled(2, 2), "2,000 are dead: `outbox list --state dead --name a/b` shows why."],
        ),
        (
            {
                "sampled": 3,
                "with_run": 3,
                "per_second": 12.25,
                "held_median_seconds": 0.25,
                "held_p95_seconds": 3.0,
                "start_median_seconds": 0.4,
                "start_p95_seconds": 90.0,
                "outcomes": {"completed": 2, "queued": 1},
            },
            [PACE, of_sampled(3, 3), STARTS, "Of the runs are 2 completed, 1 queued.", QUEUED],
        ),
        (
            {**NO_TIME, "sampled": 2, "with_run": 2, "expected": True, "outcomes": {"failed": 2}},
            [AT_ONCE, of_sampled(2, 2), STARTS_AT_ONCE, "Of the runs are 2 failed."],
        ),
        ({"no_run_since": NOW, "last_run_at": NOW + HOUR_MS}, [MISSING]),
        ({"sampled": 2, "no_run_since": NOW}, [of_sampled(0, 2), MISSING]),
        (
            {**ONE_OF_TWO, "no_run_since": NOW},
            [AT_ONCE, of_sampled(1, 2), STARTS_AT_ONCE, BOTH, QUEUED, MISSING],
        ),
        ({"sampled": 2}, [of_sampled(0, 2), NONE_EXPECTED]),
        (ONE_OF_TWO, [AT_ONCE, of_sampled(1, 2), STARTS_AT_ONCE, BOTH, QUEUED, NO_ALARM]),
        ({"sampled": 2, "ran": 1}, [of_sampled(0, 2), NO_ALARM]),
        ({"sampled": 2, "with_run": 1, "ran": 1, "expected": True}, [of_sampled(1, 2), SOME]),
        ({"sampled": 2, "expected": True}, [of_sampled(0, 2), SOME]),
    ],
)
def test_a_name_says_how_its_events_and_runs_go(figures: dict[str, Any], words: list[str]) -> None:
    view = NameView(**{"name": "a/b", "expected": False, **figures})
    assert explain_name("a/b", view, OPEN, serving=True) == words


def test_a_name_that_is_held_up_says_how_it_went_before() -> None:
    stopped = f"A pending a/b event waits: {STOPPED}; it is sent when one starts."
    figures: dict[str, Any] = {"sampled": 2, "with_run": 2, "dead": 1, **NO_TIME}
    view = NameView(name="a/b", expected=False, **figures)
    told = explain_name("a/b", view, OPEN, serving=False)
    assert told == [stopped, AT_ONCE, of_sampled(2, 2), STARTS_AT_ONCE, ONE_DEAD]
