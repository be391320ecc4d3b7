"""The watch of runs asks Inngest seldom, measures names, keeps what it knows, waits out trouble."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import structlog

from inngest_outbox.errors import InngestApiError, OutboxUnavailableError
from inngest_outbox.inngest.runs import EventRun, Named
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.event import NO_META, Meta
from inngest_outbox.outbox.figures import DeadGroup
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.runs import run_watch
from inngest_outbox.runs.figures import NAMES, NameView, names_of
from inngest_outbox.runs.questions import RunQuestions
from inngest_outbox.runs.run_watch import RunWatch
from inngest_outbox.runs.sampling import Candidate
from inngest_outbox.runs.turn import SCOPE, Turn, WatchPace
from tests.support.memory_scopes import MemoryScopes, Tree
from tests.support.virtual_time import in_virtual_time, now
from tests.unit.test_name_runs import row

BEGAN_MS = 1_800_000_000_000
EVENT_NAMES = ("a", "b", "c", "d")
NO_RUN_SECONDS = 30
DAY_MS = 86_400_000
GAUGES = (
    "no_runs",
    "sampled_without_run_ratio",
    "runs_failed_ratio",
    "held_p95_seconds",
    "run_start_p95_seconds",
)


MOVED = {"ms": 0}  # the clock


def wall_now_ms() -> int:
    return BEGAN_MS + int(now() * 1000) + MOVED["ms"]


class Inngest:
    """It knows the `known` runs of each event by its ULID.

    Without these it knows two of each event, but of those of `stopped` from a time on. `asked` are
    the times of the questions, `questions` their kinds, what they were about, and where. A function
    whose `skips` are None is one about which it fails, a `fault` is its answer to everything, or to
    questions of the kind `faulty`.
    """

    def __init__(
        self,
        known: Mapping[str, Sequence[EventRun]] | None = None,
        *,
        stopped: str = "",
        from_seconds: float = 0.0,
        used_by: str | None = "01OTHER",
        skips: Mapping[str, bool | None] | None = None,
        fault: InngestApiError | None = None,
    ) -> None:
        self.asked: list[float] = []
        self.questions: list[tuple[str | None, ...]] = []
        self.skips = skips
        self._known, self._used_by, self.fault = known, used_by, fault
        self._stopped, self._from = stopped, from_seconds * 100
        self.faulty = ""

    def about(self, kind: str) -> list[str | None]:
        """What the questions of a kind were about."""
        return [about for one, about, *_ in self.questions if one == kind]

    @property
    def names(self) -> set[str]:
        return {(ulid or "").partition("-")[0] for ulid in self.about("words")}

    def _ask(self, *question: str | None) -> None:
        self.asked.append(now())
        self.questions.append(question)
        if self.fault and self.faulty in ("", question[0]):
            raise self.fault

    async def run_words(self, ulid: str, environment: str | None = None) -> dict[str, str]:
        self._ask("words", ulid, environment)
        if self._known is not None:
            return {one.id: one.status for one in self._known.get(ulid, [])}
        name, _, number = ulid.partition("-")
        has_none = name == self._stopped and int(number) >= self._from
        return {} if has_none else {"r-1": "Scheduled", "r-2": "Running"}

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        self._ask("run", run_id, environment)
        if self._known is None:
            return run(run_id, "RUNNING")
        known = (one for runs in self._known.values() for one in runs if one.id == run_id)
        return None if run_id == "gone" else next(known)

    async def used_before(
        self, ulid: str, event_id: str, name: str, environment: str | None = None
    ) -> str | None:
        self._ask("used", ulid, event_id, name, environment)
        return self._used_by

    async def may_skip(
        self, app: str, function: str, environment: str | None = None
    ) -> bool | None:
        self._ask("skips", function, app, environment)
        if self.skips is None:
            return None
        if self.skips[function] is None:
            raise InngestApiError
        return self.skips[function]


class Rows:
    """A hundred events a second of each name are delivered; the newest page is all there is."""

    def __init__(
        self, names: Sequence[str], meta: Meta = NO_META, *, away_seconds: float = 0.0
    ) -> None:
        self.names = names
        self._meta = meta
        self._away_seconds = away_seconds

    async def rows(self, wanted: Filter) -> list[Row]:
        if now() < self._away_seconds:
            raise OutboxUnavailableError
        if wanted.state is not State.DELIVERED or wanted.before_seq is not None:
            return []
        newest = int(now() * 100)
        names = [wanted.name] if wanted.name else self.names
        at = range(newest, max(0, newest - wanted.limit // len(names)), -1)
        began_ms = BEGAN_MS + MOVED["ms"]
        rows = [row(name, one, began_ms + one * 10) for one in at for name in names]
        return [msgspec.structs.replace(one, meta=self._meta) for one in rows]

    async def dead_groups(self, limit: int) -> list[DeadGroup]:
        reasons = {"rejected": 18_000, "too_large": 5}
        assert limit >= sum(reasons.values())
        return [DeadGroup("a", reason, dead, 0, "") for reason, dead in reasons.items()]


class Fixed:
    """Delivered rows that stay as they are, newest first."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows = [
            msgspec.structs.replace(one, seq=len(rows) - at) for at, one in enumerate(rows)
        ]
        self.asked: list[Filter] = []

    async def rows(self, wanted: Filter) -> list[Row]:
        self.asked.append(wanted)
        return [
            one
            for one in self._rows
            if wanted.state is State.DELIVERED
            and (wanted.name is None or wanted.name == one.name)
            and (wanted.before_seq is None or one.seq < wanted.before_seq)
            and (wanted.after_seq is None or one.seq > wanted.after_seq)
        ][: wanted.limit]

    async def dead_groups(self, limit: int) -> list[DeadGroup]:
        return []


class Away(Fixed):
    """A store that is away."""

    async def rows(self, wanted: Filter) -> list[Row]:
        self.asked.append(wanted)
        raise OutboxUnavailableError


class Gauges(NullRecorder):
    """The last value of each gauge."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], float] = {}

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.last[name, labels["name"]] = value

    def of(self, name: str) -> tuple[float, ...]:
        return tuple(self.last[gauge, name] for gauge in GAUGES)


class Scopes(MemoryScopes):
    """`saved` are the times at which names were kept. So many saves fail first as `outages`."""

    def __init__(self, *views: NameView) -> None:
        super().__init__()
        self.saved: list[float] = []
        self.outages = 0
        self.stored[SCOPE, NAMES] = {"at": BEGAN_MS, "names": msgspec.to_builtins(views)}

    async def save_scope(self, scope: str, scope_id: str, settings: Tree) -> None:
        if self.outages:
            self.outages -= 1
            raise OutboxUnavailableError
        await super().save_scope(scope, scope_id, settings)
        if scope_id == NAMES:
            self.saved.append(now())

    def names(self) -> dict[str, NameView]:
        return {one.name: one for one in names_of(self.stored[SCOPE, NAMES]).names}


def run(run_id: str, status: str, started_at: str | None = None, function: str = "f") -> EventRun:
    ended = started_at if status in {"COMPLETED", "FAILED"} else None
    return EventRun(run_id, status, started_at, ended, None, Named(function), Named("app"))


def moment(seconds: float) -> str:
    """2027-01-15T08:00:00Z is BEGAN_MS."""
    return f"2027-01-15T08:00:{seconds:06.3f}Z"


class Handed(Turn):
    """A turn that is this process's own until a time, and again from another on."""

    def __init__(self, until: float, from_seconds: float) -> None:
        super().__init__(MemoryScopes(), alone=True)
        self._until, self._from = until, from_seconds

    async def mine(self) -> bool:
        return not self._until <= now() < self._from


@contextlib.contextmanager
def watching(
    inngest: Inngest,
    rows: Rows | Fixed,
    *,
    scopes: MemoryScopes | None = None,
    turn: Turn | None = None,
    recorder: Recorder | None = None,
    names: Sequence[str] = (),
    no_run_seconds: float = NO_RUN_SECONDS,
) -> Iterator[RunWatch]:
    """A watch, which asks Inngest once a second at most."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_watch, "wall_now_ms", wall_now_ms)
        yield RunWatch(
            inngest,
            rows,
            scopes or MemoryScopes(),
            turn or Turn(MemoryScopes(), alone=True),
            recorder or NullRecorder(),
            no_run_seconds=no_run_seconds,
            pace=WatchPace(),
            names=names,
        )
        assert all(gap >= 1 for gap in gaps(inngest.asked))


async def watch_for(seconds: float, watch: RunWatch) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await watch.run()


async def watched(seconds: float, inngest: Inngest, rows: Rows | Fixed, **options: Any) -> None:
    with watching(inngest, rows, **options) as watch:
        await watch_for(seconds, watch)


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


@in_virtual_time
async def test_inngest_is_asked_once_a_second_at_most_whatever_the_load() -> None:
    inngest = Inngest()
    with watching(inngest, Rows(EVENT_NAMES, away_seconds=10)) as watch:
        await watch_for(240, watch)
    assert inngest.names == set(EVENT_NAMES)
    # Their runs had not ended: each is asked about once more.
    assert max(Counter(inngest.about("words")).values()) == 2
    assert len(inngest.asked) > 60
    # All dead events of a name are counted.
    assert {one.name: one.dead for one in watch.kept.names if one.dead} == {"a": 18_005}


@in_virtual_time
async def test_of_forty_names_one_that_stops_is_told_within_a_minute_after_its_time() -> None:
    names = [f"name{number}" for number in range(40)]
    inngest = Inngest(stopped="name7", from_seconds=600)
    with watching(inngest, Rows(names)) as watch:
        await watch_for(600 + NO_RUN_SECONDS + 60, watch)
        known = watch.kept.missing_runs(wall_now_ms())
    assert [one.name for one in known] == ["name7"]


@pytest.mark.parametrize("fault", [None, InngestApiError()])
@in_virtual_time
async def test_it_goes_on_asking_though_the_clock_was_set_back(
    fault: InngestApiError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inngest = Inngest(fault=fault)
    with watching(inngest, Rows(["a"])) as watch:
        running = asyncio.create_task(watch_for(NO_RUN_SECONDS * 4, watch))
        await asyncio.sleep(NO_RUN_SECONDS * 2)
        monkeypatch.setitem(MOVED, "ms", -3_600_000)
        await running
        assert 0 < watch.kept.at < BEGAN_MS
    assert inngest.asked[-1] > NO_RUN_SECONDS * 3


@in_virtual_time
async def test_an_event_whose_id_was_used_before_is_no_missing_run() -> None:
    inngest = Inngest(stopped="a", from_seconds=100)
    with watching(inngest, Rows(EVENT_NAMES, Meta("chosen"))) as watch:
        await watch_for(300, watch)
        assert watch.kept.missing_runs(wall_now_ms()) == []
        assert all(one.asked == one.ran > 0 for one in watch.kept.names)


@in_virtual_time
async def test_gauges_tell_of_each_name_and_become_zero_where_the_turn_is_lost() -> None:
    rows = [row("a", number, BEGAN_MS + number * 1000) for number in (3, 2, 1, 0)]
    rows[0] = msgspec.structs.replace(rows[0], accepted_at_ms=BEGAN_MS - 2_000)
    before = Scopes(NameView(name="a", expected=True, asked=9, ran=9, last_run_at=BEGAN_MS))
    known = {
        "a-0": [run("0", "COMPLETED", moment(2.5))],
        "a-1": [
            run("1", "FAILED", moment(3.0)),
            *(run(f"1{one}", "COMPLETED", moment(3.0)) for one in "ab"),
        ],
        "a-2": [run("2", "RUNNING", moment(3.0))],
    }
    gauges = Gauges()
    turn = Handed(120, 1e9)
    with watching(Inngest(known), Fixed(rows), scopes=before, recorder=gauges, turn=turn) as watch:
        await watch_for(119, watch)
        assert gauges.of("a") == (0.0, 0.25, 0.2, 5.0, 2.5)
        assert watch.kept.names
        await watch_for(10, watch)
        assert gauges.of("a") == (0.0,) * 5
        assert not watch.kept.names


@pytest.mark.parametrize(
    ("status", "word"), [("RUNNING", "running"), ("QUEUED", "queued"), ("FAILED", "retrying")]
)
@in_virtual_time
async def test_runs_that_had_not_ended_are_asked_about_once_more(status: str, word: str) -> None:
    unended = EventRun("0", status, moment(1.0), None, None, Named("f"), Named("app"))
    known, scopes = {"a-0": [run("1", "COMPLETED", moment(2.0)), unended]}, Scopes()
    held = row("a", 0, BEGAN_MS + 5_000)
    held = msgspec.structs.replace(held, accepted_at_ms=BEGAN_MS + 6_000)  # by another clock
    with watching(Inngest(known), Fixed([held]), scopes=scopes) as watch:
        await watch_for(80, watch)
        assert scopes.names()["a"].outcomes == {"completed": 1, word: 1}
        known["a-0"] = [run(one, "COMPLETED", moment(2.0)) for one in "01"]
        await watch_for(80, watch)
    told = scopes.names()["a"]
    assert (told.outcomes, told.asked) == ({"completed": 2}, 1)
    # It began before Inngest's answer came.
    assert (told.held_p95_seconds, told.start_p95_seconds) == (0.0, 0.0)


@in_virtual_time
async def test_of_a_busy_name_the_end_of_every_fourth_event_s_runs_is_asked_for() -> None:
    rows = [row("a", at, BEGAN_MS - 60_000 + at * 1_000) for at in range(29, -1, -1)]
    scopes = Scopes()
    known = {one.id: [run(f"r{one.id}", "COMPLETED", moment(1.0))] for one in rows}
    await watched(18, Inngest(known), Fixed(rows), scopes=scopes)
    told = scopes.names()["a"].outcomes
    assert told["running"] > told["completed"] > 2
    assert scopes.saved == [2.0, 17.0]  # the first answer at once, the others 15 s later


@pytest.mark.parametrize(("runs", "times"), [(["0"], 2), (["0", "1"], 1)])
@in_virtual_time
async def test_whether_they_may_skip_is_asked_again_only_where_runs_are_missing(
    runs: list[str], times: int
) -> None:
    known = {
        f"a-{one}": [run(one + name, "COMPLETED", moment(1.0), name) for name in "fg"]
        for one in runs
    }
    inngest = Inngest(known, skips={"f": True, "g": False})
    rows = [row("a", at, BEGAN_MS + at * 400_000) for at in (1, 0)]
    await watched(500, inngest, Fixed(rows))
    assert inngest.about("skips") == ["f", "g"] * times
    # Where no other event waits, all is asked of each run, and once.
    assert inngest.about("words") == ["a-0", "a-1"]
    assert inngest.about("run") == [one + name for one in runs for name in "fg"]


@in_virtual_time
async def test_with_its_turn_it_takes_over_what_another_process_kept() -> None:
    first = NameView(name="a", expected=True, asked=1, ran=1, last_run_at=BEGAN_MS)
    scopes = Scopes(first)
    with watching(Inngest({}), Fixed(), scopes=scopes, turn=Handed(60, 120)) as watch:
        await watch_for(100, watch)
        later = msgspec.structs.replace(first, asked=9, ran=9)
        kept = [later, msgspec.structs.replace(later, name="b")]
        scopes.stored[SCOPE, NAMES] = {"at": wall_now_ms(), "names": msgspec.to_builtins(kept)}
        await watch_for(60, watch)
    assert [(one.name, one.asked) for one in scopes.names().values()] == [("a", 9), ("b", 9)]


def had_run(name: str, ago_ms: int) -> NameView:
    return NameView(name=name, expected=True, ran=1, last_run_at=BEGAN_MS - ago_ms)


@pytest.mark.parametrize(("held", "asked_at"), [([0], 30), ([6, 0], 40)])
@in_virtual_time
async def test_one_event_without_a_run_is_missed_after_twenty_quiet_seconds(
    held: list[int], asked_at: int
) -> None:
    rows = Fixed([row("a", at, BEGAN_MS + at * 1000) for at in held])
    had, trouble = Scopes(had_run("a", 60_000)), InngestApiError() if held[0] else None
    inngest = Inngest({}, fault=trouble)
    asyncio.get_running_loop().call_later(35, setattr, inngest, "fault", None)
    with watching(inngest, rows, scopes=had) as watch:
        await watch_for(asked_at + 19, watch)
        assert watch.kept.missing_runs(wall_now_ms()) == []
        await watch_for(3, watch)
        assert [one.name for one in watch.kept.missing_runs(wall_now_ms())] == ["a"]


@pytest.mark.parametrize(
    ("names", "remembered"),
    [
        ([had_run("week", 7 * DAY_MS - 60_000), had_run("old", 7 * DAY_MS + 60_000)], ["week"]),
        (
            [
                NameView(name="missing", expected=True, ran=1, no_run_since=BEGAN_MS - 60_000),
                NameView(name="never", expected=False),
            ],
            ["missing"],
        ),
        (
            [had_run(f"n{at:03}", at * 1000) for at in reversed(range(110))],
            [f"n{at:03}" for at in range(100)],
        ),
    ],
    ids=["a week", "while they miss their runs", "of many those with the latest runs"],
)
@in_virtual_time
async def test_names_are_remembered(names: list[NameView], remembered: list[str]) -> None:
    scopes = Scopes(*names)
    scopes.is_away = True  # at first
    asyncio.get_running_loop().call_later(5, vars(scopes).update, {"is_away": False})
    await watched(30, Inngest({}), Fixed(), scopes=scopes)
    assert sorted(scopes.names()) == remembered


@in_virtual_time
async def test_a_name_that_makes_room_for_another_is_kept_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, scopes, gauges = Rows([f"n{at:03}" for at in range(100)]), Scopes(), Gauges()
    with watching(Inngest({}), rows, scopes=scopes, recorder=gauges) as watch:
        await watch_for(160, watch)
        rows.names = ["late"]  # alone
        monkeypatch.setitem(MOVED, "ms", 900_000 + NO_RUN_SECONDS * 1000)
        await watch_for(30, watch)
    names = list(scopes.names())
    assert (len(names), names[0]) == (100, "late")  # in the order of the alphabet
    [gone] = {name for _, name in gauges.last} - {*names}
    assert gauges.of(gone) == (0.0,) * 5


@in_virtual_time
async def test_names_that_change_in_nothing_are_kept_every_five_minutes() -> None:
    scopes = Scopes()
    scopes.outages = 1
    await watched(1_000, Inngest({}), Fixed(), scopes=scopes, names=["a"])
    assert (len(scopes.saved), scopes.loads) == (4, 1)
    assert scopes.saved[0] < 30  # soon after a save that failed
    assert all(300 <= gap < 320 for gap in gaps(scopes.saved))


@pytest.mark.parametrize("purged", [False, True])
@pytest.mark.parametrize(
    ("rows", "per_second"),
    [
        ([("a", 10.0)] * 150 + [("b", 100.0)] * 50, {"a": 1.5, "b": 0.5}),
        ([("a", 10.0)] * 90 + [("b", 899.9)] * 45 + [("c", 900.0)] * 9, {"a": 0.1, "b": 0.05}),
        ([("a", 10.0)] * 180 + [("c", 1_800.0)] * 20, {"a": 0.2}),
        ([("a", 0.0)] * 400, {"a": 200.0}),  # of the newest 200, over a second at least
    ],
)
@in_virtual_time
async def test_the_rate_of_a_name_is_that_of_the_newest_events_of_a_quarter_of_an_hour(
    rows: list[tuple[str, float]], per_second: dict[str, float], *, purged: bool
) -> None:
    scopes = Scopes()

    def rates() -> dict[str, float]:
        return {name: one.per_second for name, one in scopes.names().items() if one.per_second}

    found = [row(name, at, BEGAN_MS - int(age * 1000)) for at, (name, age) in enumerate(rows)]
    accepted = [msgspec.structs.replace(one, accepted_at_ms=one.settled_at_ms) for one in found]
    held = Fixed(accepted)
    with watching(Inngest({}), held, scopes=scopes) as watch:
        await watch_for(0.5, watch)
        assert rates() == per_second
        if purged:
            held._rows = []
        await asyncio.sleep(20 if purged else 900)
        await watch_for(0.5, watch)
        assert rates() == {}


@pytest.mark.parametrize(("refused", "least", "most"), [(False, 10.0, 11.5), (True, 1.0, 1.5)])
@in_virtual_time
async def test_after_trouble_it_is_quiet_for_ten_seconds(
    *, refused: bool, least: float, most: float
) -> None:
    inngest = Inngest(fault=InngestApiError(refused=refused))
    rows = [row("a", number, BEGAN_MS + number * 1000) for number in range(9, -1, -1)]
    with structlog.testing.capture_logs() as lines:
        await watched(90, inngest, Fixed(rows))
    assert len(inngest.asked) >= 5
    assert all(least <= gap <= most for gap in gaps(inngest.asked))
    told = {"event": "runs_not_asked", "log_level": "debug", "reason": str(inngest.fault)}
    assert lines == [told] * len(inngest.asked)


@pytest.mark.parametrize(("faulty", "with_run"), [("run", 0), ("used", 1)])
@in_virtual_time
async def test_an_event_about_which_a_later_question_fails_counts_nowhere(
    faulty: str, with_run: int
) -> None:
    inngest = Inngest({"a-0": [run("0", "COMPLETED", moment(1.0))]}, used_by=None)
    inngest.fault, inngest.faulty = InngestApiError(), faulty
    rows = [row("a", at, BEGAN_MS + at * 1_000) for at in (1, 0)]
    chosen = [msgspec.structs.replace(one, meta=Meta("order-1")) for one in rows]
    with watching(inngest, Fixed(chosen)) as watch:
        await watch_for(60, watch)
        assert [(one.sampled, one.with_run) for one in watch.kept.names] == [(1, with_run)]
    assert inngest.about("words") == ["a-0", "a-1"]


@pytest.mark.parametrize(
    ("skips", "may_skip"),
    [
        ({}, None),
        ({"a": True}, True),
        ({"a": True, "b": False}, False),
        ({"a": True, "b": None}, None),
        ({"a": None, "b": False}, False),
        ({"a": True, "b": True, "c": True, "d": True, "e": True, "f": False}, True),
    ],
)
@in_virtual_time
async def test_a_name_may_skip_where_each_of_its_functions_may(
    skips: dict[str, bool | None], *, may_skip: bool | None
) -> None:
    inngest = Inngest(skips=skips)
    questions = RunQuestions(inngest, 1.0)
    assert await questions.skips({("app", one) for one in skips}, None) is may_skip
    assert inngest.about("skips") == sorted(skips)[:5]


@in_virtual_time
async def test_the_functions_of_a_busy_name_are_learnt_with_its_first_answer() -> None:
    at_ms = BEGAN_MS - 2 * NO_RUN_SECONDS * 1000
    rows = [row("a", number, at_ms + number * 1000) for number in range(9, -1, -1)]
    known = {one.id: [run(f"r{one.id}", "RUNNING")] for one in rows[:5]}
    inngest = Inngest(known, skips={"f": True})
    with watching(inngest, Fixed(rows)) as watch:
        await watch_for(5, watch)
        assert inngest.about("skips") == ["f"]
        await watch_for(55, watch)  # others are asked about briefly, and some have no run
    assert inngest.about("skips") == ["f"]


@in_virtual_time
async def test_what_a_function_may_do_is_asked_every_five_minutes_by_no_wall_clock() -> None:
    inngest = Inngest(skips={"a": False})
    questions, functions = RunQuestions(inngest, 1.0), {("app", "a"), ("other", "a")}
    for _ in range(2):
        await questions.skips(functions, None)
    assert inngest.questions == [("skips", "a", app, None) for app in ("app", "other")]
    for skips in (True, None):  # what was known stays where Inngest is in trouble
        inngest.skips = {"a": skips}
        await asyncio.sleep(300)
        for _ in range(2):
            assert await questions.skips(functions, None)
    assert inngest.about("skips") == ["a"] * 6


@pytest.mark.parametrize(
    ("briefly", "statuses", "asked"),
    [
        (False, ["COMPLETED", "RUNNING", "FAILED", "RUNNING"], 4),
        (True, ["Completed", "Running", "Failed"], 1),
        (True, ["Scheduled", "Queued", "Skipped"], 4),
    ],
)
@in_virtual_time
async def test_of_an_event_three_runs_are_asked_about(
    *, briefly: bool, statuses: list[str], asked: int
) -> None:
    inngest = Inngest({"u": [run(f"{at}", status) for at, status in enumerate(statuses)]})
    one = Candidate("u", None, BEGAN_MS, BEGAN_MS, BEGAN_MS + NO_RUN_SECONDS * 1000)
    found = await RunQuestions(inngest, 1.0).runs(one, briefly=briefly)
    assert [run.id for run in found] == ["0", "1", "2"]
    assert [run.status for run in found] == statuses[:3]
    for own in (one, msgspec.structs.replace(one, wire_id="")):  # which the service chose
        assert not await RunQuestions(inngest, 1.0).is_repeat("a", own)
    assert inngest.asked == [float(at) for at in range(asked)]


@in_virtual_time
async def test_a_repeat_is_looked_for_under_the_id_and_in_the_environment_of_its_event() -> None:
    inngest = Inngest()
    one = Candidate("u", "branch/a", BEGAN_MS, BEGAN_MS, BEGAN_MS, wire_id="order-1")
    with structlog.testing.capture_logs() as lines:
        assert await RunQuestions(inngest, 1.0).is_repeat("a", one)
        assert not await RunQuestions(Inngest(used_by=None), 1.0).is_repeat("a", one)
    assert inngest.questions == [("used", "u", "order-1", "a", "branch/a")]
    assert inngest.asked == [1.0]
    told = {"event": "event_id_used_before", "log_level": "warning"}
    assert lines == [{**told, "inngest_id": "u", "used_by": "01OTHER"}]


@in_virtual_time
async def test_all_is_asked_in_the_environment_of_the_event() -> None:
    meta = Meta("order-1", "branch/a")
    inngest = Inngest({"a-0": [run("0", "COMPLETED", moment(1.0))]}, used_by=None)
    rows = [msgspec.structs.replace(row(name, 0, BEGAN_MS), meta=meta) for name in "ab"]
    await watched(60, inngest, Fixed(rows))
    asked = {(kind, where) for kind, *_, where in inngest.questions}
    assert asked == {(one, "branch/a") for one in ("words", "run", "used", "skips")}


@in_virtual_time
async def test_a_run_that_inngest_has_forgotten_has_no_word_and_one_it_fails_at_is_not_told() -> (
    None
):
    inngest = Inngest({"u": [run("gone", "Scheduled")]})
    one = Candidate("u", None, BEGAN_MS, BEGAN_MS, BEGAN_MS)
    questions = RunQuestions(inngest, 1.0)
    assert await questions.runs(one, briefly=False) == [EventRun("gone", "")]
    asyncio.get_running_loop().call_later(0.5, setattr, inngest, "fault", InngestApiError())
    with pytest.raises(InngestApiError):
        await questions.runs(one, briefly=False)


@in_virtual_time
async def test_at_each_look_the_newest_page_is_read_and_one_that_is_older_by_a_page_more() -> None:
    rows = Fixed([row("a", number, BEGAN_MS) for number in range(5_600)])
    await watched(130.5, Inngest(), rows, no_run_seconds=300)
    page = Filter(state=State.DELIVERED, limit=200)
    befores = [5_600 - 200 * number for number in (*range(1, 26), 1, 2)]
    older = [msgspec.structs.replace(page, before_seq=before) for before in befores]
    assert rows.asked == [one for both in zip([page] * 27, older, strict=True) for one in both]


@in_virtual_time
async def test_names_that_are_not_among_the_newest_are_looked_for_nine_a_look() -> None:
    rows = Fixed([row("a", number, BEGAN_MS) for number in range(5_600)])
    names = [f"rare{number:02}" for number in range(12)]
    await watched(7, Inngest(), rows, no_run_seconds=300, names=names)
    wanted = Filter(state=State.DELIVERED, after_seq=600, limit=2)
    named = [msgspec.structs.replace(wanted, name=name) for name in reversed(names)]
    assert rows.asked[2:11] == named[:9]
    assert rows.asked[13:] == named[9:]


@pytest.mark.parametrize("kind", [Fixed, Away])
@in_virtual_time
async def test_of_few_rows_one_page_is_read_and_no_name_is_looked_for(kind: type[Fixed]) -> None:
    rows = kind([row("a", number, BEGAN_MS) for number in range(199)])
    await watched(7, Inngest(), rows, no_run_seconds=300, names=["rare"])
    assert rows.asked == [Filter(state=State.DELIVERED, limit=200)] * 2


@in_virtual_time
async def test_names_far_behind_a_busy_one_are_all_asked_about() -> None:
    names = [f"rare{number:02}" for number in range(12)]
    at_ms = BEGAN_MS - 2 * NO_RUN_SECONDS * 1000
    busy = [row("busy", number, at_ms) for number in range(4_000)]
    inngest = Inngest()
    busy[2_000] = row("undeclared", 2_000, at_ms)
    rows = Fixed([*busy, *(row(name, number, at_ms) for name in names for number in (2, 1))])
    await watched(120, inngest, rows, names=names)
    assert inngest.names == {"busy", "undeclared", *names}
    assert {f"{name}-{number}" for name in names for number in (1, 2)} <= {*inngest.about("words")}
