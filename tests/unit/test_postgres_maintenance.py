"""When a process on PostgreSQL moves the marks, folds the counts and tries an append."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres import maintenance as module
from service.outbox.postgres.availability import PROBE
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.maintenance import PostgresMaintenance
from tests.support.virtual_time import in_virtual_time, now
from tests.support.watched_tasks import WatchedTasks

AWAKE_AT = 1000.0  # of a machine that did not start just now


class World(WatchedTasks):
    """What maintenance uses; `busy` statements of others run between two rounds."""

    def __init__(self) -> None:
        super().__init__()
        given: Any = self
        self.statements = 5
        self.busy = 9
        self.looks: list[tuple[float, float]] = []
        self.leases_are_over = False
        self.expired = 0
        self.expiries = 0
        self.wakes = 0
        self.ran: list[tuple[float, str]] = []
        self.error: Exception | None = None
        self.maintenance = PostgresMaintenance(given, given, given, given, given)

    async def look(self, interval_seconds: float) -> bool:
        self.looks.append((round(now(), 6), interval_seconds))
        self.statements += self.busy
        if self.error:
            raise self.error
        return self.leases_are_over

    async def expire(self) -> int:
        self.expiries += 1
        return self.expired

    def rows_are_due(self) -> None:
        self.wakes += 1

    async def run(self, statement: str) -> None:
        self.ran.append((round(now(), 6), statement))

    def times(self) -> list[float]:
        """When the marks were looked at."""
        return [at for at, _ in self.looks]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def monotonic() -> float:
        try:
            return AWAKE_AT + now()
        except RuntimeError:
            return AWAKE_AT

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))


async def until(seconds: float) -> None:
    await asyncio.sleep(seconds - now())


@in_virtual_time
async def test_the_marks_are_looked_at_twice_a_second_while_rows_move() -> None:
    world = World()
    async with world.maintenance as entered:
        assert entered is world.maintenance
        assert set(world.tasks) == {"outbox-maintenance"}
        await until(1.2)
        assert world.times() == [0, 0.5, 1]
        assert {interval for _, interval in world.looks} == {0.45}
        world.busy = 3
        await until(6)
        assert world.times() == [0, 0.5, 1, 1.5, 3.5, 5.5]
        world.busy = 4
        await until(8.2)
        assert world.times() == [0, 0.5, 1, 1.5, 3.5, 5.5, 7.5, 8]
    assert world.tasks == {}


@in_virtual_time
async def test_counts_are_folded_at_once_and_an_append_is_tried_after_ten_seconds() -> None:
    world = World()
    async with world.maintenance:
        await until(31)
    assert [at for at, statement in world.ran if statement == FOLD] == [0, 10, 20, 30]
    assert [at for at, statement in world.ran if statement == PROBE] == [10, 20, 30]


@pytest.mark.parametrize(
    ("leases_are_over", "expired", "expiries", "wakes"),
    [(False, 3, 0, 0), (True, 0, 1, 0), (True, 3, 1, 1)],
)
@in_virtual_time
async def test_claims_are_woken_for_rows_whose_lease_is_over(
    leases_are_over: bool,  # noqa: FBT001
    expired: int,
    expiries: int,
    wakes: int,
) -> None:
    world = World()
    world.leases_are_over, world.expired = leases_are_over, expired
    async with world.maintenance:
        await until(0.2)
    assert (world.expiries, world.wakes) == (expiries, wakes)


@in_virtual_time
async def test_it_goes_on_after_a_loss() -> None:
    world = World()
    world.error = OutboxUnavailableError("down")
    async with world.maintenance:
        await until(1.2)
        assert world.times() == [0, 0.5, 1]
        assert world.ran == []
        world.error = None
        await until(1.7)
        assert world.ran == [(1.5, FOLD)]
