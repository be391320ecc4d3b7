"""When a PostgreSQL outbox's counts are read, and what its quota adds to them, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import OutboxFullError, OutboxUnavailableError, TooManyPendingError
from service.outbox.fair_share import FairShare
from service.outbox.limits import Held, Limits
from service.outbox.postgres import quota as module
from service.outbox.postgres.counts import Snapshot
from service.outbox.postgres.quota import SET_LIMITS, PostgresQuota
from tests.support.virtual_time import in_virtual_time, now
from tests.support.watched_tasks import WatchedTasks


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1000 + now()))


class World(WatchedTasks):
    """What a quota uses: the database's counts, read in `takes` seconds, and its tasks."""

    def __init__(self, limits: Limits | None = None, heavy_rows: int = 3) -> None:
        super().__init__()
        given: Any = self
        fair_share = FairShare(heavy_rows=heavy_rows)
        self.quota = PostgresQuota(given, given, given, limits or Limits(10, 10), fair_share)
        self.held: dict[str, Held] = {}
        self.heavy: set[str] = set()
        self.snapshot = "7:7:"
        self.reads: list[float] = []
        self.takes = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self.ran: list[tuple[str, Any]] = []

    @property
    def total(self) -> Held:
        rows = [one for one, _ in self.held.values()]
        return sum(rows), sum(size for _, size in self.held.values())

    def of(self, owner: str) -> Held:
        return self.held.get(owner, (0, 0))

    async def read(self, within_seconds: float) -> Snapshot:
        assert within_seconds > 0
        self.reads.append(round(now(), 6))
        await asyncio.sleep(self.takes)
        self.meanwhile()
        if self.error:
            raise self.error
        return Snapshot.parse(self.snapshot)

    async def run(self, statement: str, given: Any) -> None:
        self.ran.append((statement, given))


@in_virtual_time
async def test_the_limits_are_stored_and_the_counts_are_read_at_the_start() -> None:
    world = World(Limits(1, 2, 3, 4), heavy_rows=5)
    async with world.quota as entered:
        assert entered is world.quota
        assert set(world.tasks) == {"outbox-count"}
        assert world.reads == [0]
    assert world.tasks == {}
    limits = {"pending": 1, "pending_per_user": 2, "bytes": 3, "bytes_per_user": 4, "heavy": 5}
    assert world.ran == [(SET_LIMITS, limits)]


@in_virtual_time
async def test_the_counts_are_read_once_a_second_while_events_enter_else_each_ten() -> None:
    world = World()
    async with world.quota as quota:
        for at in (3, 3.5, 3.8):
            await asyncio.sleep(at - now())
            quota.entered("a", (0, 0), (1, 1), 1)
        await asyncio.sleep(26.5 - now())
        quota.entered("a", (0, 0), (0, 0), 1)
        await asyncio.sleep(40 - now())
    assert world.reads == [0, 3, 4, 15, 26, 37]


@in_virtual_time
async def test_who_asked_before_a_read_began_has_its_result() -> None:
    world = World()
    world.takes = 1.0

    async def read_at(seconds: float) -> float:
        await asyncio.sleep(seconds)
        await world.quota._read()
        return round(now(), 6)

    ends = await asyncio.gather(*(read_at(one) for one in (5.0, 5.0, 5.1, 5.2, 9.0)))
    assert world.reads == [5.0, 6.0, 9.0]
    assert ends == [6.0, 7.0, 7.0, 7.0, 10.0]


@in_virtual_time
async def test_reads_begin_twenty_milliseconds_apart() -> None:
    world = World()
    await asyncio.sleep(50)
    for _ in range(3):
        await world.quota._read()
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.015)
    await world.quota._read()
    assert world.reads == [50, 50.02, 50.04, 50.06]


@in_virtual_time
async def test_a_read_that_fails_leaves_the_counts_as_they_are() -> None:
    world = World()
    world.error = OutboxUnavailableError("down")
    world.quota.entered("a", (0, 0), (2, 20), 7)
    world.quota.entered("a", (0, 0), (1, 10))
    await world.quota._read()
    assert world.quota.pending == 3
    world.error = None
    world.snapshot = "7:7:"
    await world.quota._read()
    assert world.quota.pending == 2
    world.snapshot = "8:8:"
    await world.quota._read()
    assert world.quota.pending == 0


@in_virtual_time
async def test_pending_events_are_those_of_the_counts_and_those_stored_since() -> None:
    world = World()
    world.held = {"a": (2, 30)}
    world.quota.entered("b", (0, 0), (1, 0), 7)
    assert world.quota.pending == 3


@in_virtual_time
async def test_what_has_room_is_admitted_without_a_read() -> None:
    world = World(Limits(3, 2))
    await world.quota.admit("a", 2, 20)
    await world.quota.admit("b", 1, 10)
    assert world.reads == []
    with pytest.raises(OutboxFullError):
        await world.quota.admit("b", 1, 10)


@in_virtual_time
async def test_no_room_is_reserved_for_what_is_refused() -> None:
    world = World(Limits(10, 2))
    with pytest.raises(TooManyPendingError):
        await world.quota.admit("a", 3, 30)
    assert len(world.reads) == 1
    await world.quota.admit("a", 2, 20)
    world.quota.entered("a", (2, 20), (0, 0))
    await world.quota.admit("a", 2, 20)
    world.quota.entered("a", (2, 20), (1, 10), 7)
    await world.quota.admit("a", 1, 10)
    with pytest.raises(TooManyPendingError):
        await world.quota.admit("a", 1, 10)


@in_virtual_time
async def test_bytes_have_limits_of_their_own() -> None:
    world = World(Limits(10, 10, max_bytes=100, max_bytes_per_owner=60))
    world.held = {"a": (1, 20)}
    await world.quota.admit("a", 1, 30)
    world.quota.entered("a", (1, 30), (1, 30), 7)
    await world.quota.admit("a", 1, 10)
    with pytest.raises(TooManyPendingError):
        await world.quota.admit("a", 1, 1)
    await world.quota.admit("b", 1, 40)
    with pytest.raises(OutboxFullError):
        await world.quota.admit("b", 1, 1)


@in_virtual_time
async def test_an_event_is_refused_after_five_reads_while_others_enter() -> None:
    world = World(Limits(10, 2))
    await world.quota.admit("a", 1, 10)
    with pytest.raises(TooManyPendingError):
        await world.quota.admit("a", 2, 20)
    assert len(world.reads) == 5


@in_virtual_time
async def test_an_event_is_refused_after_five_reads_while_the_stored_may_count_twice() -> None:
    world = World(Limits(10, 2))
    world.meanwhile = lambda: world.quota.entered("a", (0, 0), (1, 10))
    with pytest.raises(TooManyPendingError):
        await world.quota.admit("a", 3, 20)
    assert len(world.reads) == 5


@in_virtual_time
async def test_an_event_has_room_once_a_read_shows_it() -> None:
    world = World(Limits(10, 2))
    world.held = {"a": (2, 20)}
    world.meanwhile = world.held.clear
    await world.quota.admit("a", 1, 10)
    assert len(world.reads) == 1


@in_virtual_time
async def test_an_owner_who_was_heavy_is_express_again_among_heavy_ones() -> None:
    world = World(Limits(100, 100))
    world.heavy = {"b"}
    world.held = {"b": (9, 0)}
    assert world.quota.is_express("a") is True
    await world.quota.admit("a", 3, 0)
    assert world.quota.is_express("a") is False
    await world.quota._read()
    assert world.quota.is_express("a") is False
    world.quota.entered("a", (1, 0), (0, 0))
    await world.quota._read()
    assert world.quota.is_express("a") is True


@in_virtual_time
async def test_nobody_is_express_where_nobody_is_heavy() -> None:
    world = World()
    assert world.quota.is_express("a") is False
    await world.quota.admit("b", 2, 1000)
    assert world.quota.is_express("a") is False
    await world.quota.admit("b", 1, 1)
    assert world.quota.is_express("a") is True


def test_a_tally_adds_up_by_owner_and_in_all() -> None:
    tally = module.Tally({"a": (1, 10)})
    tally.add("b", 2, 20)
    other = tally.copy()
    tally.add("a", -1, -10)
    assert (tally.of("a"), tally.of("b"), tally.rows, tally.bytes) == ((0, 0), (2, 20), 2, 20)
    assert tally.owners() == {"b"}
    assert (other.of("a"), other.rows, other.bytes) == ((1, 10), 3, 30)
    other.subtract(module.Tally({"a": (1, 5), "c": (1, 1)}))
    assert (other.of("a"), other.of("c"), other.rows, other.bytes) == ((0, 5), (-1, -1), 1, 24)
    assert other.owners() == {"a", "b", "c"}
    other.subtract(other.copy())
    assert other.owners() == module.Tally().owners() == set()
