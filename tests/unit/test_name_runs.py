"""A name misses its runs when its events start none and usually do; what is asked about."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import pytest

from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.model import Row, State
from inngest_outbox.runs.figures import Answer, KeptNames, NameRuns, NameView, names_of
from inngest_outbox.runs.sampling import MAX_NAMES, Candidate, Sampling
from tests.support.made_row import made_row

T = 1_800_000_000_000
SLOT_MS = 5_000
WINDOW_MS = 900_000


def name_runs(before: NameView | None = None, *, declared: bool = False) -> NameRuns:
    return NameRuns("a/b", declared=declared, slot_ms=SLOT_MS, quiet_ms=20_000, before=before)


def answers(known: NameRuns, pattern: str, *, from_ms: int = T) -> int:
    """One answer for each letter, a slot apart: its run's outcome or N, none; when it ended."""
    outcomes = {"R": ("completed",), "Q": ("queued",), "N": (), "F": ("failed",)}
    outcomes |= {"C": ("cancelled",), "A": ("retrying",), "G": ("running",)}
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
        *((True, None, f"NN{begun}", False) for begun in "FCAG"),
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
    known = name_runs(declared=declared)
    known.skips = skips
    known.judge(answers(known, pattern))
    assert (known.no_run_since is not None) is missing


@pytest.mark.parametrize(("pattern", "missing"), [("RN", True), ("N", False), ("RNNNNRNN", False)])
def test_one_event_is_enough_when_no_other_follows(pattern: str, *, missing: bool) -> None:
    known = name_runs()
    now = answers(known, pattern)
    known.judge(now)
    assert known.no_run_since is None
    known.judge(now + 20_000)
    assert (known.no_run_since is not None) is missing


@pytest.mark.parametrize(("at_ms", "outcome"), [(T, "completed"), (T + 2 * SLOT_MS, "queued")])
def test_a_second_answer_about_an_event_does_not_make_its_name_less_quiet(
    at_ms: int, outcome: str
) -> None:
    known = name_runs(declared=True)
    now = answers(known, "RN")
    known.take(f"{at_ms}", Answer(at_ms, now + 19_000, 0.1, 0.2, (outcome,)))
    known.judge(now + 20_000)
    assert known.no_run_since == T + 2 * SLOT_MS


def test_a_run_ends_it_and_a_day_without_events_too() -> None:
    known = name_runs(declared=True)
    answers(known, "N", from_ms=T + 2 * SLOT_MS)  # the newest event comes first
    now = answers(known, "N")
    assert known.judge(now)
    before = known.view(now, per_second=0.0, dead=0)
    assert known.no_run_since == T
    later = name_runs(before, declared=True)
    assert not later.judge(now)
    assert later.no_run_since == T
    assert later.judge(now + 86_400_001)
    assert later.no_run_since is None
    assert not known.judge(now + 86_400_000)
    assert known.no_run_since == T
    known.take("new", Answer(T + 60_000, now + 60_000, 0.1, 0.2, ("running",)))
    assert known.no_run_since is None
    gone = name_runs(declared=True)
    now = answers(gone, "NN")
    told = [gone.judge(now + later_ms) for later_ms in (0, 86_400_001, 86_400_002, 86_400_003)]
    assert (told, gone.no_run_since) == ([True, True, False, False], None)  # it stays so


def test_an_event_beside_one_with_a_run_is_no_sign() -> None:
    known = name_runs(declared=True)
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


@pytest.mark.parametrize("apart_ms", [1, 0])  # those of one moment in the order of their ids
@pytest.mark.parametrize("numbers", [range(9), range(8, -1, -1), (3, 8, 0)])
def test_of_a_slot_the_first_and_the_last_event_are_asked_about(
    numbers: Sequence[int], apart_ms: int
) -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in numbers:
        sampling.offer(row("a", number, T + number * apart_ms), T + 10)
    last_ms = T + 300_000 + 8 * apart_ms
    assert not sampling.has_due(last_ms - 1)
    assert asked(sampling, last_ms - 1, 1) == []
    assert asked(sampling, last_ms, 3) == [("a", "a-8"), ("a", "a-0")]


def test_of_events_whose_own_time_is_far_ahead_some_wait_over_all_of_it() -> None:
    sampling, found = Sampling(no_run_seconds=300), list[int]()
    for number in range(2_000):
        meta = Meta(ts_ms=T + number * SLOT_MS)
        sampling.offer(msgspec.structs.replace(row("a", number, T), meta=meta), T)
    for number in range(2_000):
        due = asked(sampling, T + 300_000 + number * SLOT_MS, 2)
        found += sorted(int(ulid.removeprefix("a-")) for _, ulid in due)
    assert (len(found) < 700, found[:60], found[-1]) == (True, [*range(60)], 1_999)
    assert max(later - one for one, later in itertools.pairwise(found)) <= 64


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


def test_an_event_that_is_asked_about_again_soon_does_not_wait_for_one_that_waits_longer() -> None:
    sampling = Sampling(no_run_seconds=300)
    for ulid, soon in (("later", False), ("soon", True), ("next", True)):
        sampling.ask_again("a", Candidate(ulid, None, T, T, T), T, soon=soon)
    assert asked(sampling, T, 3) == [("a", "soon"), ("a", "next")]
    assert asked(sampling, T + 900_000, 2) == [("a", "later")]


def test_a_row_that_inngest_gave_no_id_and_its_own_alarms_are_not_sampled() -> None:
    sampling = Sampling(no_run_seconds=300)
    assert not sampling.offer(msgspec.structs.replace(row("a", 0, T), inngest_id=None), T)
    assert not sampling.offer(row("outbox/alarm", 0, T), T)
    assert not sampling.names


@pytest.mark.parametrize(
    ("age_ms", "late_age_ms", "gone"),
    [
        (WINDOW_MS, 0, ["n0"]),
        (WINDOW_MS, WINDOW_MS - 1, ["n0"]),
        (WINDOW_MS, WINDOW_MS, []),  # of its own events none is asked about either
        (WINDOW_MS - 1, 0, []),
        (10 * WINDOW_MS, 0, ["n0", "n1"]),  # though its old events are read again and again
    ],
)
def test_a_name_whose_events_were_due_a_quarter_of_an_hour_ago_makes_room(
    age_ms: int, late_age_ms: int, gone: Sequence[str]
) -> None:
    sampling, now = Sampling(no_run_seconds=300, always=["mine"]), T + 300_000 + age_ms
    names = [f"n{number}" for number in range(MAX_NAMES - 1)]
    for number in reversed(range(MAX_NAMES - 1)):
        assert sampling.offer(row(f"n{number}", 1, T + number), now)
        assert sampling.offer(row(f"n{number}", 0, T - 1_000), now)  # an older one counts less
    late = [row(name, 0, now - 300_000 - late_age_ms) for name in ("late", "later")]
    taken = ["late", "later"][: len(gone)]
    assert [one.name for one in late if sampling.offer(one, now)] == taken
    assert {*sampling.names} == {*names, *taken, "mine"} - {*gone}


def test_names_whose_events_are_far_ahead_make_room_when_they_are_seen_no_more() -> None:
    sampling, ahead = Sampling(no_run_seconds=300), Meta(ts_ms=T + 10 * WINDOW_MS)
    for number in range(MAX_NAMES):
        assert sampling.offer(msgspec.structs.replace(row(f"n{number}", 0, T), meta=ahead), T)
    late_ms = T + 300_000 + WINDOW_MS
    late = [row("late", 0, late_ms - 1), row("late", 0, late_ms)]
    assert [sampling.offer(one, one.settled_at_ms or 0) for one in late] == [False, True]


def test_declared_names_stay() -> None:
    full = Sampling(no_run_seconds=300, always=[f"n{one}" for one in range(MAX_NAMES)])
    taken = [full.offer(row(name, 0, T), T) for name in ("n0", "late")]
    assert taken == [True, False]


def told(start: float | None, *outcomes: str, held: float = 0.1, at_ms: int = T) -> Answer:
    return Answer(at_ms - 300_000, at_ms, held, start, outcomes)


def test_the_figures_of_a_name() -> None:
    known = name_runs()
    for number in range(1, 21):
        known.take(f"{number}", told(number * 2.0, "completed", held=float(number)))
    known.take("21", told(None, held=1.0))
    known.take("22", told(None, "queued", held=1.0))
    known.take("23", told(1.0, "queued", "failed", "retrying", "cancelled", held=1.0))
    known.take("24", told(None, held=30.0))
    known.take("old", told(99.0, "failed", held=99.0, at_ms=T - 1))
    view = known.view(T + WINDOW_MS, per_second=1.2345, dead=7)
    assert (view.sampled, view.with_run, view.without_run) == (24, 21, 3)
    assert (view.held_median_seconds, view.held_p95_seconds) == (9.5, 20.0)
    assert (view.start_median_seconds, view.start_p95_seconds) == (20.0, 38.0)
    counted = [("cancelled", 1), ("completed", 20), ("failed", 1), ("queued", 2), ("retrying", 1)]
    assert list(view.outcomes.items()) == counted
    assert (view.failed, view.runs) == (2, 25)
    assert (view.asked, view.ran, view.last_run_at) == (25, 22, T - 300_000)
    assert (view.name, view.expected, view.per_second, view.dead) == ("a/b", True, 1.23, 7)
    assert known.view(T + WINDOW_MS + 1, per_second=0.0, dead=7) == NameView(
        name="a/b", expected=True, dead=7, asked=25, ran=22, last_run_at=T - 300_000
    )


def test_times_of_the_last_hundred_answers_are_told_in_milliseconds() -> None:
    known = name_runs()
    for number in range(101):
        known.take(f"{number}", told(0.33344, "failed" if not number else "completed", held=1.5555))
    view = known.view(T, per_second=0.0, dead=0)
    assert (view.sampled, view.failed) == (100, 0)
    assert (view.held_median_seconds, view.start_p95_seconds) == (1.556, 0.333)


@pytest.mark.parametrize("expected", [False, True])  # as its functions were known then
def test_a_restart_does_not_change_since_when_runs_are_missing(*, expected: bool) -> None:
    missing = {"asked": 9, "ran": 9, "no_run_since": T - 60_000}
    known = name_runs(NameView(name="a/b", expected=expected, **missing))
    assert known.judge(answers(known, "NN"))
    assert known.no_run_since == T - 60_000


@pytest.mark.parametrize(
    ("pattern", "counted"),
    [
        ("R" * 199 + "N", (200, 199)),
        ("R" * 151 + "N" * 50, (100, 76)),  # what is counted is halved, runs upwards
        ("R" + "N" * 200, (100, 1)),
    ],
)
def test_old_answers_count_less(pattern: str, counted: tuple[int, int]) -> None:
    known = name_runs()
    view = known.view(answers(known, pattern), per_second=0.0, dead=0)
    assert (view.asked, view.ran) == counted


def test_an_event_that_is_asked_about_twice_counts_once() -> None:
    known = name_runs()
    for outcomes in (("queued",), ("running",), ("completed",)):
        known.take("one", told(None, *outcomes))
    view = known.view(T, per_second=0.0, dead=0)
    assert (view.asked, view.ran, view.sampled, view.runs) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("before", "skips", "expected", "missing"),
    [
        (None, None, False, False),
        (NameView(name="a/b", expected=True, asked=9, ran=9), None, True, True),
        (NameView(name="a/b", expected=True, asked=9, ran=8), None, True, False),
        # a rate limit was seen
        (NameView(name="a/b", expected=False, asked=9, ran=1), True, False, False),
        (NameView(name="a/b", expected=False, asked=9, ran=0), None, False, False),
    ],
)
def test_what_an_earlier_process_knew(
    *, before: NameView | None, skips: bool | None, expected: bool, missing: bool
) -> None:
    known = name_runs(before)
    assert (known.skips, known.expected) == (skips, expected)
    view, earlier = (
        known.view(T, per_second=0.0, dead=0),
        before or NameView(name="", expected=False),
    )
    assert (view.asked, view.ran) == (earlier.asked, earlier.ran)
    known.judge(answers(known, "NN"))
    assert (known.no_run_since is not None) is missing


def test_the_last_run_that_an_earlier_process_saw_ends_a_gap() -> None:
    seen = NameView(name="a/b", expected=True, asked=9, ran=9, last_run_at=T + 60_000)
    known = name_runs(seen)
    known.judge(answers(known, "NN"))
    assert known.no_run_since is None
    assert known.view(T, per_second=0.0, dead=0).last_run_at == T + 60_000


def test_a_run_of_an_event_before_the_gap_does_not_end_it() -> None:
    known = name_runs(declared=True)
    now = answers(known, "NN")
    assert known.judge(now)
    known.take("before", Answer(T - 1, now, 0.1, 0.2, ("completed",)))
    assert known.no_run_since == T
    known.take("first", Answer(T, now, 0.1, 0.2, ("completed",)))
    assert known.no_run_since is None
    assert known.view(now, per_second=0.0, dead=0).asked == 2


TIMES = {f"{kind}{what}Seconds": None for kind in ("held", "start") for what in ("Median", "P95")}
COUNTS = {"sampled": 0, "withRun": 0, "dead": 0, "asked": 0, "ran": 0}
WELL = {"name": "late", "expected": True, "outcomes": {}, "perSecond": 0.0, **TIMES, **COUNTS}
WELL |= {"lastRunAt": None, "noRunSince": None}  # as the next version and programs read it


@pytest.mark.parametrize(
    ("age_ms", "missing"), [(-2 * WINDOW_MS, ["late"]), (WINDOW_MS, ["late"]), (WINDOW_MS + 1, [])]
)
def test_kept_names_tell_what_is_missing_for_a_quarter_of_an_hour(
    age_ms: int, missing: list[str]
) -> None:
    late = NameView(name="late", expected=True, no_run_since=T)
    kept = KeptNames(T, (NameView(name="well", expected=True), late))
    stored = msgspec.to_builtins(kept)
    assert [one.name for one in names_of(stored).missing_runs(T + age_ms)] == missing
    assert stored == {"at": T, "names": ({**WELL, "name": "well"}, {**WELL, "noRunSince": T})}


@pytest.mark.parametrize("stored", [None, {}, {"at": "soon"}, [1]])
def test_a_stored_value_of_another_shape_has_no_names(stored: object) -> None:
    assert names_of(stored) == KeptNames()


@pytest.mark.parametrize(
    ("meta", "accepted_ms", "held_ms"),
    [
        (Meta(), T - 100, T),
        (Meta(ts_ms=T + 60_000), T - 100, T + 60_000),  # Inngest runs it then
        (Meta(due_at_ms=T - 20), T - 20, T),
        (Meta(due_at_ms=T - 500), T - 100, T),  # it was delayed by nothing
        (Meta(answered_id="01ANSWERED"), T - 100, T),  # Inngest gave it another id
    ],
)
def test_an_event_should_have_its_run_so_long_after_its_time(
    meta: Meta, accepted_ms: int, held_ms: int
) -> None:
    sampling = Sampling(no_run_seconds=300)
    assert sampling.offer(msgspec.structs.replace(row("a", 0, T), meta=meta), T)
    assert sampling.next(held_ms + 299_999) is None
    found = sampling.next(held_ms + 300_000)
    assert found
    assert (found[1].accepted_at_ms, found[1].held_at_ms) == (accepted_ms, held_ms)
    assert found[1].ulid == (meta.answered_id or "a-0")


@pytest.mark.parametrize(("age_ms", "found"), [(WINDOW_MS - 1, 1), (WINDOW_MS, 0)])
def test_an_event_that_was_due_long_ago_is_not_asked_about(age_ms: int, found: int) -> None:
    sampling, now = Sampling(no_run_seconds=300), T + 300_000 + age_ms
    assert sampling.offer(row("a", 0, T), now)
    assert len(asked(sampling, now, 2)) == found


def test_of_a_name_that_is_behind_the_newest_twenty_slots_are_asked_about() -> None:
    sampling = Sampling(no_run_seconds=300)
    for number in range(25):
        sampling.offer(row("a", number, T + number * SLOT_MS), T)
    found = [one for _, one in asked(sampling, T + 600_000, 30)]
    assert found == [f"a-{number}" for number in range(24, 4, -1)]


def test_events_that_had_not_ended_have_every_fourth_turn() -> None:
    sampling, now = Sampling(no_run_seconds=300), T + 600_000
    for number in range(12):
        sampling.offer(row("a", number, T + number * SLOT_MS), now)
    found = sampling.next(now)
    assert found
    for soon in (True, False):
        sampling.ask_again(*found, now, soon=soon)
    _, again = [sampling.next(now), sampling.next(now)], sampling.next(now)
    assert again
    assert (again[1].ulid, again[1].again) == ("a-11", True)
    sampling.ask_again(*again, now, soon=True)  # a third time, never
    assert "a-11" not in [one for _, one in asked(sampling, now + 899_999, 20)]
    assert asked(sampling, now + 900_000, 2) == [("a", "a-11")]
