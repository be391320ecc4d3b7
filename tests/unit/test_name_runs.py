"""A name misses its runs when its events start none and usually do."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from service.outbox.model import Row, State
from service.runs.figures import Answer, NameRuns
from service.runs.sampling import MAX_NAMES, Candidate, Sampling
from tests.support.made_row import made_row

T = 1_800_000_000_000
SLOT_MS = 5_000


def answers(known: NameRuns, pattern: str, *, from_ms: int = T) -> int:
    """One answer for each letter, a slot apart: R ran, Q is queued, N none; when it ended."""
    outcomes = {"R": ("completed",), "Q": ("queued",), "N": ()}
    at = from_ms
    for number, letter in enumerate(pattern):
        at = from_ms + number * 2 * SLOT_MS
        known.take(f"{at}", Answer(at, at + 300_000, 0.1, 0.2, outcomes[letter]))
    return at + 300_000


@pytest.mark.parametrize(
    ("declared", "skips", "pattern", "missing"),
    [
        (False, None, "NNNNNNNNNN", False),  # never had a run
        (True, None, "N", False),
        (True, None, "NN", True),
        (True, True, "RNNRNN", True),
        (True, None, "RNRNN", True),
        (False, None, "R" * 20 + "N", False),
        (False, None, "R" * 20 + "NN", True),
        (False, None, "R" * 20 + "QQ", True),
        (False, None, "R" * 20 + "NNR", False),
        (False, False, "RNRNN", True),
        (False, None, "RNRNN", False),  # it may have a rate limit
        (False, True, "R" * 20 + "N" * 20, False),
    ],
)
def test_runs_are_missing_where_no_event_may_be_without(
    *, declared: bool, skips: bool | None, pattern: str, missing: bool
) -> None:
    known = NameRuns("a/b", declared=declared, slot_ms=SLOT_MS, quiet_ms=20_000)
    known.skips = skips
    now = answers(known, pattern)
    known.judge(now)
    assert (known.no_run_since is not None) is missing


@pytest.mark.parametrize(("pattern", "missing"), [("RN", True), ("N", False), ("RNNNNRNN", False)])
def test_one_event_is_enough_when_no_other_follows(pattern: str, *, missing: bool) -> None:
    known = NameRuns("a/b", declared=False, slot_ms=SLOT_MS, quiet_ms=20_000)
    now = answers(known, pattern)
    known.judge(now)
    assert known.no_run_since is None
    known.judge(now + 20_000)
    assert (known.no_run_since is not None) is missing


def test_a_second_answer_about_an_event_does_not_make_its_name_less_quiet() -> None:
    known = NameRuns("a/b", declared=True, slot_ms=SLOT_MS, quiet_ms=20_000)
    now = answers(known, "N")
    known.take(f"{T}", Answer(T, now + 19_000, 0.1, 0.2, ("queued",)))
    known.judge(now + 20_000)
    assert known.no_run_since == T


def test_a_run_ends_it_and_a_day_without_events_too() -> None:
    known = NameRuns("a/b", declared=True, slot_ms=SLOT_MS, quiet_ms=20_000)
    now = answers(known, "NN")
    assert known.judge(now)
    before = known.view(now, per_second=0.0, dead=0)
    assert known.no_run_since == T
    later = NameRuns("a/b", declared=True, slot_ms=SLOT_MS, quiet_ms=20_000, before=before)
    assert later.no_run_since == T
    assert later.judge(now + 86_400_001)
    assert later.no_run_since is None
    known.take("new", Answer(T + 60_000, now + 60_000, 0.1, 0.2, ("running",)))
    assert known.no_run_since is None


def test_an_event_beside_one_with_a_run_is_no_sign() -> None:
    known = NameRuns("a/b", declared=True, slot_ms=SLOT_MS, quiet_ms=20_000)
    now = answers(known, "R")
    for number in range(9):
        known.take(f"n{number}", Answer(T + number * 100, now, 0.1, None, ()))
    known.judge(now + 60_000)
    assert known.no_run_since is None


def row(name: str, number: int, settled_at_ms: int) -> Row:
    return made_row(
        State.DELIVERED,
        id=f"{name}-{number}",
        name=name,
        accepted_at_ms=settled_at_ms - 100,
        settled_at_ms=settled_at_ms,
        inngest_id=f"{name}-{number}",
    )


def asked(sampling: Sampling, now_ms: int, turns: int) -> Sequence[tuple[str, str]]:
    found = (sampling.next(now_ms) for _ in range(turns))
    return [(one[0], one[1].ulid) for one in found if one]


def test_turns_go_over_the_names_and_begin_with_the_newest_event() -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in range(3):
        for name in ("a", "b"):
            for _ in range(3):  # it is read again and again
                sampling.offer(row(name, number, T + number * SLOT_MS), T + 20_000)
    assert asked(sampling, T + 299_000, 3) == []
    assert asked(sampling, T + 330_000, 7) == [
        ("a", "a-2"),
        ("b", "b-2"),
        ("a", "a-1"),
        ("b", "b-1"),
        ("a", "a-0"),
        ("b", "b-0"),
    ]
    for number in range(3):
        sampling.offer(row("a", number, T + number * SLOT_MS), T + 330_000)
    assert asked(sampling, T + 330_000, 2) == []


@pytest.mark.parametrize("numbers", [range(9), range(8, -1, -1), (8, 3, 0)])
def test_of_a_slot_the_first_and_the_last_event_are_asked_about(numbers: Sequence[int]) -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in numbers:
        sampling.offer(row("a", number, T + number), T + 10)
    assert asked(sampling, T + 310_000, 3) == [("a", "a-8"), ("a", "a-0")]


def test_events_of_one_moment_are_in_the_order_of_their_ids() -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in (1, 2, 0):
        sampling.offer(row("a", number, T), T)
    assert asked(sampling, T + 310_000, 3) == [("a", "a-2"), ("a", "a-0")]


def test_a_name_whose_turn_it_is_waits_until_it_is_due() -> None:
    sampling = Sampling(no_run_seconds=300)
    sampling.offer(row("a", 0, T + 60_000), T)
    sampling.offer(row("b", 0, T), T)
    assert not sampling.has_due(T + 299_999)
    assert sampling.has_due(T + 300_000)
    assert asked(sampling, T + 300_000, 2) == [("b", "b-0")]


@pytest.mark.parametrize(
    ("no_run_seconds", "slot_ms"), [(0.5, 1_000), (66.0, 1_100), (300.0, 5_000), (600.0, 10_000)]
)
def test_a_slot_is_a_sixtieth_of_the_time_a_second_at_least(
    no_run_seconds: float, slot_ms: int
) -> None:
    assert Sampling(no_run_seconds).slot_ms == slot_ms


def test_two_hundred_events_that_had_not_ended_are_asked_about_again() -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in range(205):
        one = Candidate(f"u-{number}", None, T, T, T)
        sampling.ask_again("a", one, T, soon=True)
    found = [one for _, one in asked(sampling, T, 300)]
    assert (len(found), found[0], found[-1]) == (200, "u-5", "u-204")


def test_a_row_that_inngest_gave_no_id_is_not_sampled() -> None:
    sampling = Sampling(no_run_seconds=300)
    assert not sampling.offer(msgspec.structs.replace(row("a", 0, T), inngest_id=None), T)
    assert not sampling.names


def test_where_declared_names_take_all_room_no_other_is_sampled() -> None:
    sampling = Sampling(300, always=[f"n{one}" for one in range(MAX_NAMES)])
    assert not sampling.offer(row("other", 0, T), T)
    assert sampling.offer(row("n1", 0, T), T)


def test_a_name_that_was_not_seen_for_a_quarter_of_an_hour_makes_room() -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in reversed(range(MAX_NAMES)):
        sampling.offer(row(f"n{number}", 0, T), T + number)
    sampling.offer(row("n50", 1, T), T + 899_999)
    assert not sampling.offer(row("late", 0, T), T + 899_999)
    sampling.offer(row("n50", 1, T), T + 900_000)
    assert sampling.offer(row("late", 0, T), T + 900_000)
    assert "n0" not in sampling.names
    assert not sampling.offer(row("later", 0, T), T + 900_000)


def test_names_are_bounded_and_declared_ones_stay() -> None:
    sampling = Sampling(no_run_seconds=300, always=["mine"])
    taken = [sampling.offer(row(f"n{one}", 0, T), T + one) for one in range(MAX_NAMES + 5)]
    assert taken.count(True) == MAX_NAMES - 1
    assert sampling.offer(row("late", 0, T + 2_000_000), T + 2_000_000) is False
    assert sampling.offer(row("n50", 1, T + 2_000_000), T + 2_000_000)
    assert sampling.offer(row("late", 0, T + 2_000_000), T + 2_000_000)
    assert "mine" in sampling.names
    assert len(sampling.names) == MAX_NAMES


def test_its_own_alarms_are_never_sampled() -> None:
    sampling = Sampling(no_run_seconds=300)
    assert not sampling.offer(row("outbox/alarm", 0, T), T)
