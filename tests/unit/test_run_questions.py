"""Inngest is asked about runs once a second at most, whatever the load."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from service.errors import OutboxUnavailableError
from service.inngest.runs import EventRun, Named
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.event import NO_META, Meta
from service.outbox.figures import DeadGroup
from service.outbox.model import Filter, Row, State
from service.runs import questions, run_watch
from service.runs.run_watch import RunWatch
from service.runs.turn import Turn, WatchPace
from tests.support.memory_scopes import MemoryScopes
from tests.support.virtual_time import in_virtual_time, now
from tests.unit.test_name_runs import row

BEGAN_MS = 1_800_000_000_000
NAMES = ("a", "b", "c", "d")
NO_RUN_SECONDS = 30


def wall_now_ms() -> int:
    return BEGAN_MS + int(now() * 1000)


class Inngest:
    """It knows two runs of each event, but of those of `stopped` from a time on.

    `asked` are the times of the questions.
    """

    def __init__(self, stopped: str = "", from_seconds: float = 0.0) -> None:
        self.asked: list[float] = []
        self.asked_about: list[str] = []
        self.ids_asked_about: list[tuple[str | None, ...]] = []
        self.names: set[str] = set()
        self._stopped, self._from = stopped, from_seconds * 100

    async def run_words(self, ulid: str, environment: str | None = None) -> dict[str, str]:
        self.asked.append(now())
        self.asked_about.append(ulid)
        name, _, number = ulid.partition("-")
        self.names.add(name)
        has_none = name == self._stopped and int(number) >= self._from
        return {} if has_none else {"r-1": "Scheduled", "r-2": "Running"}

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        self.asked.append(now())
        return EventRun(run_id, "RUNNING", function=Named("f"), app=Named("app"))

    async def used_before(
        self, ulid: str, event_id: str, name: str, environment: str | None = None
    ) -> str | None:
        self.asked.append(now())
        self.ids_asked_about.append((ulid, event_id, name, environment))
        return "01OTHER"

    async def may_skip(
        self, app: str, function: str, environment: str | None = None
    ) -> bool | None:
        self.asked.append(now())
        return None


class Rows:
    """A hundred events a second of each name are delivered."""

    def __init__(
        self, names: Sequence[str], meta: Meta = NO_META, *, away_seconds: float = 0.0
    ) -> None:
        self._names = names
        self._meta = meta
        self._away_seconds = away_seconds

    async def rows(self, wanted: Filter) -> list[Row]:
        if now() < self._away_seconds:
            raise OutboxUnavailableError
        if wanted.state is not State.DELIVERED:
            return []
        newest = int(now() * 100)
        names = [wanted.name] if wanted.name else self._names
        at = range(newest, max(0, newest - wanted.limit // len(names)), -1)
        rows = [row(name, one, BEGAN_MS + one * 10) for one in at for name in names]
        return [msgspec.structs.replace(one, meta=self._meta) for one in rows]

    async def dead_groups(self, limit: int) -> list[DeadGroup]:
        reasons = {"rejected": 18_000, "too_large": 5}
        assert limit >= sum(reasons.values())
        return [DeadGroup("a", reason, dead, 0, "") for reason, dead in reasons.items()]


@contextlib.contextmanager
def watching(
    inngest: Inngest,
    rows: Rows,
    *,
    scopes: MemoryScopes | None = None,
    turn: Turn | None = None,
    recorder: Recorder | None = None,
    names: Sequence[str] = (),
    no_run_seconds: float = NO_RUN_SECONDS,
) -> Iterator[RunWatch]:
    with pytest.MonkeyPatch.context() as patched:
        for module in (run_watch, questions):
            patched.setattr(module, "wall_now_ms", wall_now_ms)
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


async def watch_for(seconds: float, watch: RunWatch) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await watch.run()


@in_virtual_time
async def test_inngest_is_asked_once_a_second_at_most_whatever_the_load() -> None:
    inngest = Inngest()
    with watching(inngest, Rows(NAMES, away_seconds=10)) as watch:
        await watch_for(240, watch)
    assert inngest.names == set(NAMES)
    # Their runs had not ended: each is asked about once more.
    assert max(Counter(inngest.asked_about).values()) == 2
    assert len(inngest.asked) > 60
    assert min(b - a for a, b in zip(inngest.asked, inngest.asked[1:], strict=False)) >= 1


@in_virtual_time
async def test_of_forty_names_one_that_stops_is_told_within_a_minute_after_its_time() -> None:
    names = [f"name{number}" for number in range(40)]
    inngest = Inngest(stopped="name7", from_seconds=600)
    with watching(inngest, Rows(names)) as watch:
        await watch_for(600 + NO_RUN_SECONDS + 60, watch)
        known = watch.kept.missing_runs(wall_now_ms())
    assert [one.name for one in known] == ["name7"]


@in_virtual_time
async def test_all_dead_events_of_a_name_are_counted() -> None:
    with watching(Inngest(), Rows(NAMES)) as watch:
        await watch_for(120, watch)
    assert {one.name: one.dead for one in watch.kept.names if one.dead} == {"a": 18_005}


@in_virtual_time
async def test_an_event_whose_id_was_used_before_is_no_missing_run() -> None:
    inngest = Inngest(stopped="a", from_seconds=100)
    with watching(inngest, Rows(NAMES, Meta("chosen"))) as watch:
        await watch_for(300, watch)
        assert watch.kept.missing_runs(wall_now_ms()) == []
        assert all(one.asked == one.ran > 0 for one in watch.kept.names)


@in_virtual_time
async def test_names_that_keep_their_runs_are_never_told() -> None:
    with watching(Inngest(), Rows([f"name{number}" for number in range(40)])) as watch:
        await watch_for(300, watch)
        assert watch.kept.missing_runs(wall_now_ms()) == []
