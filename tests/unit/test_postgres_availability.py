"""Who waits for a lost PostgreSQL database, and when it is tried again, in virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Self

import psycopg
import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.postgres import availability as module
from service.outbox.postgres.availability import PROBE, Availability
from service.outbox.postgres.connection import connection_string
from tests.support.virtual_time import in_virtual_time, now

FULL = psycopg.errors.DiskFull("no space")
FULL_TOLD = "The disk of the outbox's database is full."
REFUSED = OSError("refused")
SILENT_TOLD = "The outbox's database does not answer."


class Probe:
    """A connection of its own: warns, fails, or takes its time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.warned = world.warns
        self.is_open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_open = False

    async def execute(self, statement: str, *, prepare: bool) -> None:
        assert self in self.world.set_up
        assert (statement, prepare) == (PROBE, False)
        await asyncio.sleep(self.world.takes_seconds)
        if self.world.fails:
            raise self.world.fails


class World:
    """The server that a probe finds."""

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.fails: Exception | None = None
        self.warns = False
        self.takes_seconds = 0.0
        self.asked: list[tuple[float, str, dict[str, Any]]] = []
        self.probes: list[Probe] = []
        self.set_up: list[Any] = []
        self.shut: list[Any] = []
        self.renewed: list[float] = []
        self.availability = Availability("postgresql://there/outbox", self.renew)

    async def connect(self, conninfo: str, **how: Any) -> Probe:
        self.asked.append((round(now(), 6), conninfo, how))
        assert len(self.asked) < 100, "it probes without a pause"
        if self.refuses:
            raise self.refuses
        self.probes.append(Probe(self))
        return self.probes[-1]

    async def set_up_one(self, connection: Any) -> None:
        self.set_up.append(connection)

    async def renew(self) -> None:
        assert self.availability.failure
        self.renewed.append(round(now(), 6))

    def times(self) -> list[float]:
        """When a probe began."""
        return [at for at, *_ in self.asked]

    async def passes(self, deadline: float = 900.0) -> bool:
        """Whether the gate lets a caller pass who has so many seconds of virtual time."""
        try:
            await self.availability.pass_gate(1000 + deadline)
        except OutboxUnavailableError:
            return False
        return True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1000 + now()))
    monkeypatch.setattr(module, "OutboxConnection", SimpleNamespace(connect=world.connect))
    monkeypatch.setattr(module, "set_up", world.set_up_one)
    monkeypatch.setattr(module, "shut", world.shut.append)
    return world


async def until(seconds: float) -> None:
    await asyncio.sleep(seconds - now())


@in_virtual_time
async def test_a_gate_is_open_before_a_loss_and_never_after_the_end(world: World) -> None:
    assert await world.passes(-1.0)
    assert world.availability.failure is None
    await world.availability.close()
    assert not await world.passes()
    world.availability.lose(FULL)
    assert (world.asked, world.availability.failure) == ([], None)


@in_virtual_time
async def test_a_caller_waits_half_a_second_from_the_loss_on(world: World) -> None:
    world.fails = FULL
    await until(5)
    world.availability.lose(FULL)
    await until(5.2)
    assert not await world.passes()
    assert round(now(), 6) == 5.5
    assert not await world.passes()
    assert round(now(), 6) == 5.5
    await world.availability.close()


@in_virtual_time
async def test_a_caller_waits_until_its_deadline_only(world: World) -> None:
    world.fails = FULL
    world.availability.lose(FULL)
    assert not await world.passes(0.3)
    assert round(now(), 6) == 0.3
    await world.availability.close()


@in_virtual_time
async def test_callers_go_on_once_a_probe_has_passed_and_connections_are_new(world: World) -> None:
    world.takes_seconds = 0.3
    for returns, at in enumerate((1.0, 9.0)):
        await until(at)
        world.availability.lose(FULL)
        assert (world.availability.failure, world.availability.returns) == (FULL_TOLD, returns)
        assert await world.passes()
        assert round(now(), 6) == at + 0.3
        assert (world.availability.failure, world.availability.returns) == (None, returns + 1)
    assert world.renewed == [1.3, 9.3]
    how = {"autocommit": True}
    conninfo = connection_string("postgresql://there/outbox")
    assert world.asked == [(1.0, conninfo, how), (9.0, conninfo, how)]
    assert not any(probe.is_open for probe in world.probes)
    await world.availability.close()
    assert world.shut == []


@pytest.mark.parametrize("way", ["refuses", "fails", "warns"])
@in_virtual_time
async def test_a_probe_is_tried_again_ever_more_slowly(world: World, way: str) -> None:
    setattr(world, way, FULL)
    world.availability.lose(FULL)
    world.availability.lose(REFUSED)
    await until(3.6)
    assert world.times() == [0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55]
    assert world.availability.failure == FULL_TOLD
    setattr(world, way, None)
    await until(5)
    assert world.availability.failure is None
    assert world.renewed == [4.55]


@in_virtual_time
async def test_a_relapse_within_five_seconds_is_tried_as_slowly_as_before(world: World) -> None:
    world.fails = FULL
    world.availability.lose(FULL)
    await until(0.5)
    world.fails = None
    await until(0.8)
    assert world.renewed == [0.75]
    world.fails = FULL
    await until(5.2)
    world.availability.lose(FULL)
    await until(6.2)
    assert world.times()[5:] == [5.2, 6.0]
    world.fails = None
    await until(7.5)
    assert world.renewed == [0.75, 7.0]
    world.fails = FULL
    await until(12.5)
    world.availability.lose(FULL)
    await until(12.7)
    assert world.times()[-3:] == [12.5, 12.55, 12.65]
    await world.availability.close()


@in_virtual_time
async def test_what_is_known_of_a_loss_is_told_and_logged(world: World) -> None:
    world.takes_seconds = 0.1234
    world.fails = FULL
    with capture_logs() as logs:
        world.availability.lose(REFUSED)
        assert world.availability.failure == SILENT_TOLD
        await until(0.6)
        assert world.availability.failure == FULL_TOLD
        world.fails = None
        await until(2)
    warned = {"log_level": "warning"}
    lost = {"event": "database_lost", "reason": "OSError", "failure": SILENT_TOLD}
    still = {"event": "database_still_lost", "reason": "DiskFull", "failure": FULL_TOLD}
    assert logs[:2] == [{**lost, **warned}, {**still, **warned}]
    assert logs[2:] == [{"event": "database_back", "after_seconds": 0.844, **warned}]


@in_virtual_time
async def test_the_end_shuts_a_probe_that_hangs(world: World) -> None:
    world.takes_seconds = 60.0
    world.availability.lose(FULL)
    await until(1)
    await world.availability.close()
    assert now() == 1
    assert world.shut == world.probes
    assert not world.probes[0].is_open
    assert [task.get_name() for task in asyncio.all_tasks()].count("outbox-recovery") == 0
