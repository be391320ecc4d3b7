"""Inngest is asked about runs once a second at most, whatever the load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from service.inngest.runs import EventRun, Named
from service.observe.recorder import NullRecorder
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
    """Of each second event it knows two runs. `asked` are the times of the questions."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.names: set[str] = set()

    async def run_words(self, ulid: str, environment: str | None = None) -> dict[str, str]:
        self.asked.append(now())
        self.names.add(ulid[0])
        return {"r-1": "Scheduled", "r-2": "Running"} if int(ulid[2:]) % 2 else {}

    async def run_ids(
        self, ulid: str, environment: str | None = None, *, thorough: bool = False
    ) -> Sequence[str]:
        self.asked.append(now())
        return []

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        self.asked.append(now())
        return EventRun(run_id, "RUNNING", function=Named("f"), app=Named("app"))

    async def may_skip(
        self, app: str, function: str, environment: str | None = None
    ) -> bool | None:
        self.asked.append(now())
        return None


class Rows:
    """A hundred events a second of each name are delivered."""

    async def rows(self, wanted: Filter) -> list[Row]:
        if wanted.state is not State.DELIVERED:
            return []
        newest = int(now() * 100)
        at = range(newest, max(0, newest - wanted.limit // len(NAMES)), -1)
        return [row(name, one, BEGAN_MS + one * 10) for one in at for name in NAMES]


@in_virtual_time
async def test_inngest_is_asked_once_a_second_at_most_whatever_the_load() -> None:
    with pytest.MonkeyPatch.context() as patched:
        for module in (run_watch, questions):
            patched.setattr(module, "wall_now_ms", wall_now_ms)
        inngest = Inngest()
        watch = RunWatch(
            inngest,
            Rows(),
            MemoryScopes(),
            Turn(MemoryScopes(), alone=True),
            NullRecorder(),
            no_run_seconds=NO_RUN_SECONDS,
            pace=WatchPace(),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(120):
                await watch.run()
        assert inngest.names == set(NAMES)
        assert len(inngest.asked) > 60
        assert min(b - a for a, b in zip(inngest.asked, inngest.asked[1:], strict=False)) >= 1
