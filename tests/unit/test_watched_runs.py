"""The watch of runs measures names, keeps what it knows, and is quiet after trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
import structlog

from service.errors import InngestApiError
from service.inngest.runs import EventRun, Named
from service.observe.recorder import NullRecorder
from service.outbox.event import Meta
from service.outbox.figures import DeadGroup
from service.outbox.model import Filter, Row, State
from service.runs.figures import NAMES, NameView, names_of
from service.runs.questions import RunQuestions
from service.runs.sampling import Candidate
from service.runs.turn import SCOPE, Turn
from tests.support.memory_scopes import MemoryScopes, Tree
from tests.support.virtual_time import in_virtual_time, now
from tests.unit.test_name_runs import row
from tests.unit.test_run_questions import (
    BEGAN_MS,
    NO_RUN_SECONDS,
    Inngest,
    Rows,
    wall_now_ms,
    watch_for,
    watching,
)

DAY_MS = 86_400_000
GAUGES = (
    "no_runs",
    "sampled_without_run_ratio",
    "runs_failed_ratio",
    "held_p95_seconds",
    "run_start_p95_seconds",
)


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


class Runs(Inngest):
    """It knows the runs of each event by its ULID. `fault` is what it answers instead."""

    def __init__(
        self, known: dict[str, list[EventRun]] | None = None, fault: InngestApiError | None = None
    ) -> None:
        super().__init__()
        self._known = known or {}
        self._fault = fault

    async def run_words(self, ulid: str, environment: str | None = None) -> dict[str, str]:
        self.asked.append(now())
        if self._fault:
            raise self._fault
        return {one.id: one.status for one in self._known.get(ulid, [])}

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        self.asked.append(now())
        known = (one for runs in self._known.values() for one in runs if one.id == run_id)
        return None if run_id == "gone" else next(known)


class Gauges(NullRecorder):
    """The last value of each gauge."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], float] = {}

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.last[name, labels["name"]] = value

    def of(self, name: str) -> tuple[float, ...]:
        return tuple(self.last[gauge, name] for gauge in GAUGES)


class Scopes(MemoryScopes):
    """`saved` are the times at which names were kept."""

    def __init__(self, *views: NameView) -> None:
        super().__init__()
        self.saved: list[float] = []
        self.stored[SCOPE, NAMES] = {"at": BEGAN_MS, "names": msgspec.to_builtins(views)}

    async def save_scope(self, scope: str, scope_id: str, settings: Tree) -> None:
        await super().save_scope(scope, scope_id, settings)
        if scope_id == NAMES:
            self.saved.append(now())

    def names(self) -> dict[str, NameView]:
        return {one.name: one for one in names_of(self.stored[SCOPE, NAMES]).names}


def run(run_id: str, status: str, started_at: str | None = None) -> EventRun:
    function = Named("f"), Named("app")
    ended = started_at if status in {"COMPLETED", "FAILED"} else None
    return EventRun(run_id, status, started_at, ended, None, *function)


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


@in_virtual_time
async def test_gauges_tell_of_each_name_and_become_zero_where_the_turn_is_lost() -> None:
    rows = [row("a", number, BEGAN_MS + number * 1000) for number in (3, 2, 1, 0)]
    known = {
        "a-0": [run("0", "COMPLETED", moment(2.5))],
        "a-1": [
            run("1", "FAILED", moment(3.0)),
            *(run(f"1{one}", "COMPLETED", moment(3.0)) for one in "ab"),
        ],
        "a-2": [run("2", "RUNNING", moment(3.0))],
    }
    gauges = Gauges()
    with watching(Runs(known), Fixed(rows), recorder=gauges, turn=Handed(120, 1e9)) as watch:
        await watch_for(119, watch)
        assert gauges.of("a") == (0.0, 0.25, 0.2, 0.1, 2.5)
        assert watch.kept.names
        await watch_for(10, watch)
        assert gauges.of("a") == (0.0,) * 5
        assert not watch.kept.names


@in_virtual_time
async def test_where_no_other_waits_the_start_of_each_run_is_asked_for() -> None:
    rows = [row("a", 1, BEGAN_MS + 10_000), row("a", 0, BEGAN_MS)]
    known = {
        "a-0": [run("0", "COMPLETED", moment(1.0))],
        "a-1": [run("1", "COMPLETED", moment(13.0))],
    }
    scopes = Scopes()
    with watching(Runs(known), Fixed(rows), scopes=scopes) as watch:
        await watch_for(119, watch)
    told = scopes.names()["a"]
    assert (told.start_median_seconds, told.start_p95_seconds) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("status", "word"), [("RUNNING", "running"), ("QUEUED", "queued"), ("FAILED", "retrying")]
)
@in_virtual_time
async def test_runs_that_had_not_ended_are_asked_about_once_more(status: str, word: str) -> None:
    unended = EventRun("0", status, moment(1.0), None, None, Named("f"), Named("app"))
    known, scopes = {"a-0": [unended]}, Scopes()
    with watching(Runs(known), Fixed([row("a", 0, BEGAN_MS + 5_000)]), scopes=scopes) as watch:
        await watch_for(80, watch)
        assert scopes.names()["a"].outcomes == {word: 1}
        known["a-0"] = [run("0", "COMPLETED", moment(2.0))]
        await watch_for(80, watch)
    told = scopes.names()["a"]
    assert (told.outcomes, told.asked) == ({"completed": 1}, 1)
    assert told.start_p95_seconds == 0.0  # it began before Inngest's answer came


@in_virtual_time
async def test_of_a_busy_name_the_end_of_every_fourth_event_s_runs_is_asked_for() -> None:
    rows = [row("a", at, BEGAN_MS - 60_000 + at * 1_000) for at in range(29, -1, -1)]
    scopes = Scopes()
    known = {one.id: [run(f"r{one.id}", "COMPLETED", moment(1.0))] for one in rows}
    with watching(Runs(known), Fixed(rows), scopes=scopes) as watch:
        await watch_for(18, watch)
    told = scopes.names()["a"].outcomes
    assert told["running"] > told["completed"] > 2


@in_virtual_time
async def test_where_runs_are_missing_it_is_asked_again_whether_they_may_skip() -> None:
    inngest = Skipping({"a-0": [run("0", "COMPLETED", moment(1.0))]}, f=False)
    rows = [row("a", at, BEGAN_MS + at * 400_000) for at in (1, 0)]
    with watching(inngest, Fixed(rows)) as watch:
        await watch_for(500, watch)
    assert inngest.functions == ["f", "f"]


@in_virtual_time
async def test_a_name_that_misses_its_runs_has_a_gauge() -> None:
    missing = NameView(name="a", expected=True, no_run_since=BEGAN_MS)
    gauges = Gauges()
    with watching(Runs(), Fixed(), recorder=gauges, scopes=Scopes(missing)) as watch:
        await watch_for(1, watch)
    assert gauges.last["no_runs", "a"] == 1.0


@in_virtual_time
async def test_with_its_turn_it_takes_over_what_another_process_kept() -> None:
    first = NameView(name="a", expected=True, asked=1, ran=1, last_run_at=BEGAN_MS)
    scopes = Scopes(first)
    with watching(Runs(), Fixed(), scopes=scopes, turn=Handed(60, 120)) as watch:
        await watch_for(100, watch)
        later = msgspec.structs.replace(first, asked=9, ran=9)
        kept = [later, msgspec.structs.replace(later, name="b")]
        scopes.stored[SCOPE, NAMES] = {"at": wall_now_ms(), "names": msgspec.to_builtins(kept)}
        await watch_for(60, watch)
    assert [(one.name, one.asked) for one in scopes.names().values()] == [("a", 9), ("b", 9)]


@in_virtual_time
async def test_names_are_remembered_a_week_and_while_they_miss_their_runs() -> None:
    scopes = Scopes(
        NameView(name="week", expected=True, ran=1, last_run_at=BEGAN_MS - 7 * DAY_MS + 60_000),
        NameView(name="old", expected=True, ran=1, last_run_at=BEGAN_MS - 7 * DAY_MS - 60_000),
        NameView(name="missing", expected=True, ran=1, no_run_since=BEGAN_MS - 60_000),
        NameView(name="never", expected=False),
    )
    with watching(Runs(), Fixed(), scopes=scopes) as watch:
        await watch_for(30, watch)
    assert sorted(scopes.names()) == ["missing", "week"]


@in_virtual_time
async def test_of_many_names_those_with_the_latest_runs_are_remembered() -> None:
    names = [
        NameView(name=f"n{at:03}", expected=True, ran=1, last_run_at=BEGAN_MS - at * 1000)
        for at in range(110)
    ]
    scopes = Scopes(*reversed(names))
    with watching(Runs(), Fixed(), scopes=scopes) as watch:
        await watch_for(30, watch)
    assert sorted(scopes.names()) == [f"n{at:03}" for at in range(100)]


@in_virtual_time
async def test_names_that_change_in_nothing_are_kept_every_five_minutes() -> None:
    scopes = Scopes()
    with watching(Runs(), Fixed(), scopes=scopes, names=["a"]) as watch:
        await watch_for(1_000, watch)
    gaps = [after - before for before, after in zip(scopes.saved, scopes.saved[1:], strict=False)]
    assert len(gaps) == 3
    assert all(300 <= gap < 320 for gap in gaps)


@pytest.mark.parametrize(
    ("rows", "per_second"),
    [
        ([("a", 10.0)] * 150 + [("b", 100.0)] * 50, {"a": 1.5, "b": 0.5}),
        ([("a", 10.0)] * 90 + [("b", 899.0)] * 45 + [("c", 920.0)], {"a": 0.1, "b": 0.05}),
        ([("a", 10.0)] * 180 + [("c", 1_800.0)] * 20, {"a": 0.2}),
        ([("a", 0.0)] * 200, {"a": 200.0}),  # at least a second
    ],
)
@in_virtual_time
async def test_the_rate_of_a_name_is_that_of_the_newest_events_of_a_quarter_of_an_hour(
    rows: list[tuple[str, float]], per_second: dict[str, float]
) -> None:
    scopes = Scopes()
    found = [row(name, at, BEGAN_MS - int(age * 1000)) for at, (name, age) in enumerate(rows)]
    accepted = [msgspec.structs.replace(one, accepted_at_ms=one.settled_at_ms) for one in found]
    with watching(Runs(), Fixed(accepted), scopes=scopes) as watch:
        await watch_for(0.5, watch)
    rates = {name: one.per_second for name, one in scopes.names().items()}
    assert {name: rate for name, rate in rates.items() if rate} == per_second


@pytest.mark.parametrize(("refused", "least", "most"), [(False, 10.0, 11.5), (True, 1.0, 1.5)])
@in_virtual_time
async def test_after_trouble_it_is_quiet_for_ten_seconds(
    *, refused: bool, least: float, most: float
) -> None:
    inngest = Runs(fault=InngestApiError(refused=refused))
    rows = [row("a", number, BEGAN_MS + number * 1000) for number in range(9, -1, -1)]
    with watching(inngest, Fixed(rows)) as watch:
        await watch_for(90, watch)
    gaps = [b - a for a, b in zip(inngest.asked, inngest.asked[1:], strict=False)]
    assert len(gaps) >= 4
    assert least <= min(gaps)
    assert max(gaps) <= most


class Skipping(Runs):
    """`skips` are what its functions may do. None raises."""

    def __init__(
        self, known: dict[str, list[EventRun]] | None = None, **skips: bool | None
    ) -> None:
        super().__init__(known)
        self.skips = skips
        self.functions: list[str] = []

    async def may_skip(
        self, app: str, function: str, environment: str | None = None
    ) -> bool | None:
        self.functions.append(function)
        if self.skips[function] is None:
            raise InngestApiError
        return self.skips[function]


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
    inngest = Skipping(**skips)
    questions = RunQuestions(inngest, 1.0)
    assert await questions.skips({("app", one) for one in skips}, None) is may_skip
    assert inngest.functions == sorted(skips)[:5]


@in_virtual_time
async def test_the_functions_of_a_busy_name_are_learnt_with_its_first_answer() -> None:
    at_ms = BEGAN_MS - 2 * NO_RUN_SECONDS * 1000
    rows = [row("a", number, at_ms + number * 1000) for number in range(9, -1, -1)]
    inngest = Skipping({one.id: [run(f"r{one.id}", "RUNNING")] for one in rows[:5]}, f=True)
    with watching(inngest, Fixed(rows)) as watch:
        await watch_for(5, watch)
        assert inngest.functions == ["f"]
        await watch_for(55, watch)  # others are asked about briefly, and some have no run
    assert inngest.functions == ["f"]


@in_virtual_time
async def test_what_a_function_may_do_is_asked_every_five_minutes() -> None:
    inngest = Skipping(a=False)
    with watching(Inngest(), Fixed()):
        questions = RunQuestions(inngest, 1.0)
        for _ in range(2):
            await questions.skips({("app", "a")}, None)
        assert inngest.functions == ["a"]
        for skips in (True, None):  # what was known stays where Inngest is in trouble
            inngest.skips["a"] = skips
            await asyncio.sleep(300)
            assert await questions.skips({("app", "a")}, None)
        assert inngest.functions == ["a"] * 3


@in_virtual_time
async def test_of_events_that_run_it_is_asked_once_whether_they_may_skip() -> None:
    class Declined(Inngest):
        async def may_skip(self, *_: object) -> bool:
            self.asked_about.append("may skip")
            return False

    inngest = Declined()
    with watching(inngest, Rows(["a"])) as watch:
        await watch_for(700, watch)
    assert inngest.asked_about.count("may skip") == 1


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
    inngest = Runs({"u": [run(f"{at}", status) for at, status in enumerate(statuses)]})
    one = Candidate("u", None, BEGAN_MS, BEGAN_MS, BEGAN_MS + NO_RUN_SECONDS * 1000)
    found = await RunQuestions(inngest, 1.0).runs(one, briefly=briefly)
    assert [run.id for run in found] == ["0", "1", "2"]
    assert [run.status for run in found] == statuses[:3]
    assert not await RunQuestions(inngest, 1.0).is_repeat("a", one)
    assert inngest.asked == [float(at) for at in range(asked)]


@in_virtual_time
async def test_a_repeat_is_looked_for_under_the_id_and_in_the_environment_of_its_event() -> None:
    inngest = Inngest()
    one = Candidate("u", "branch/a", BEGAN_MS, BEGAN_MS, BEGAN_MS, wire_id="order-1")
    with structlog.testing.capture_logs() as lines:
        assert await RunQuestions(inngest, 1.0).is_repeat("a", one)
    assert inngest.ids_asked_about == [("u", "order-1", "a", "branch/a")]
    assert inngest.asked == [1.0]
    told = {"event": "event_id_used_before", "log_level": "warning"}
    assert lines == [{**told, "inngest_id": "u", "used_by": "01OTHER"}]


class Placed(Inngest):
    """`environments` are those in which it was asked; it knows no runs of an event `b`."""

    def __init__(self) -> None:
        super().__init__()
        self.environments: set[tuple[str, str | None]] = set()

    async def run_words(self, ulid: str, environment: str | None = None) -> dict[str, str]:
        self.environments.add(("words", environment))
        return {} if ulid.startswith("b") else await super().run_words(ulid, environment)

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        self.environments.add(("run", environment))
        return await super().run(run_id, environment)

    async def used_before(
        self, ulid: str, event_id: str, name: str, environment: str | None = None
    ) -> None:
        self.environments.add(("used", environment))

    async def may_skip(self, app: str, function: str, environment: str | None = None) -> None:
        self.environments.add(("skip", environment))


@in_virtual_time
async def test_all_is_asked_in_the_environment_of_the_event() -> None:
    meta, inngest = Meta("order-1", "branch/a"), Placed()
    rows = [msgspec.structs.replace(row(name, 0, BEGAN_MS), meta=meta) for name in "ab"]
    with watching(inngest, Fixed(rows)) as watch:
        await watch_for(60, watch)
    assert inngest.environments == {(one, "branch/a") for one in ("words", "run", "used", "skip")}


@in_virtual_time
async def test_an_id_that_was_not_used_before_is_no_repeat() -> None:
    class First(Inngest):
        async def used_before(self, *_: object) -> None:
            return None

    one = Candidate("u", None, BEGAN_MS, BEGAN_MS, BEGAN_MS, wire_id="order-1")
    with structlog.testing.capture_logs() as lines:
        assert not await RunQuestions(First(), 1.0).is_repeat("a", one)
    assert lines == []


@in_virtual_time
async def test_a_run_that_inngest_has_forgotten_has_no_word() -> None:
    inngest = Runs({"u": [run("gone", "Scheduled")]})
    one = Candidate("u", None, BEGAN_MS, BEGAN_MS, BEGAN_MS)
    assert await RunQuestions(inngest, 1.0).runs(one, briefly=False) == [EventRun("gone", "")]


@in_virtual_time
async def test_at_each_look_the_newest_page_is_read_and_one_that_is_older_by_a_page_more() -> None:
    rows = Fixed([row("a", number, BEGAN_MS) for number in range(5_600)])
    with watching(Inngest(), rows, no_run_seconds=300) as watch:
        await watch_for(130.5, watch)
    page = Filter(state=State.DELIVERED, limit=200)
    befores = [5_600 - 200 * number for number in (*range(1, 26), 1, 2)]
    older = [msgspec.structs.replace(page, before_seq=before) for before in befores]
    assert rows.asked == [one for both in zip([page] * 27, older, strict=True) for one in both]


@in_virtual_time
async def test_names_that_are_not_among_the_newest_are_looked_for_nine_a_look() -> None:
    rows = Fixed([row("a", number, BEGAN_MS) for number in range(5_600)])
    names = [f"rare{number:02}" for number in range(12)]
    with watching(Inngest(), rows, no_run_seconds=300, names=names) as watch:
        await watch_for(7, watch)
    wanted = Filter(state=State.DELIVERED, after_seq=600, limit=2)
    named = [msgspec.structs.replace(wanted, name=name) for name in reversed(names)]
    assert rows.asked[2:11] == named[:9]
    assert rows.asked[13:] == named[9:]


@in_virtual_time
async def test_of_few_rows_one_page_is_read_and_no_name_is_looked_for() -> None:
    rows = Fixed([row("a", number, BEGAN_MS) for number in range(199)])
    with watching(Inngest(), rows, no_run_seconds=300, names=["rare"]) as watch:
        await watch_for(7, watch)
    assert rows.asked == [Filter(state=State.DELIVERED, limit=200)] * 2


@in_virtual_time
async def test_names_far_behind_a_busy_one_are_all_asked_about() -> None:
    names = [f"rare{number:02}" for number in range(12)]
    at_ms = BEGAN_MS - 2 * NO_RUN_SECONDS * 1000
    busy = [row("busy", number, at_ms) for number in range(4_000)]
    inngest = Inngest()
    rows = Fixed([*busy, *(row(name, 1, at_ms) for name in names)])
    with watching(inngest, rows, names=names) as watch:
        await watch_for(40, watch)
    assert inngest.names == {"busy", *names}
