"""What becomes of one statement on PostgreSQL, and of its connection, in virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
from types import SimpleNamespace
from typing import Any

import psycopg
import psycopg_pool
import pytest
from structlog.testing import capture_logs

from service.errors import InvalidFieldError, OutboxUnavailableError
from service.outbox.postgres import executor as module
from service.outbox.postgres.connection import OutboxConnection, connection_string, set_up
from service.outbox.postgres.executor import LostError, PostgresExecutor
from tests.support.executor_world import MAX_CONNECTIONS, URL, World
from tests.support.virtual_time import in_virtual_time, now

GIVEN = {"a": 1}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1000 + now()))
    monkeypatch.setattr(module, "AsyncConnectionPool", world.pool)
    monkeypatch.setattr(module, "psycopg", world.psycopg)
    monkeypatch.setattr(module, "shut", world.shut_one)
    return world


async def until(seconds: float) -> None:
    await asyncio.sleep(seconds - now())


def run(
    executor: PostgresExecutor,
    deadline: float = 900,
    *,
    planned: bool = False,
    heed: bool = False,
) -> asyncio.Future[list[tuple[Any, ...]]]:
    """A statement until so many seconds of virtual time."""
    work = asyncio.ensure_future(
        executor.execute(1000 + deadline, "SELECT", GIVEN, planned=planned, heed=heed)
    )
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    return work


@in_virtual_time
async def test_a_pool_has_one_connection_and_more_while_they_are_needed(world: World) -> None:
    logging.getLogger("psycopg").setLevel(logging.INFO)
    executor = world.made()
    options = {
        "connection_class": OutboxConnection,
        "kwargs": {"autocommit": True},
        "configure": set_up,
        "min_size": 1,
        "max_size": MAX_CONNECTIONS,
        "reconnect_timeout": 0.5,
        "max_lifetime": 1800,
        "open": False,
    }
    assert world.options == [(connection_string(URL), options)]
    assert world.steps == []
    async with executor as entered:
        assert entered is executor
        assert world.steps == ["open"]
        assert logging.getLogger("psycopg").level == logging.ERROR
    assert world.steps == ["open", ("closed", {"timeout": 2.0}, 0)]


@in_virtual_time
async def test_a_statement_gives_its_rows_and_counts(world: World) -> None:
    executor = world.made()
    assert executor.statements == 0
    assert await run(executor) == [(1,)]
    world.rows = None
    assert await run(executor, planned=True) == []
    assert [one.kinds for one in world.connections] == [["binary"], ["planned"]]
    assert world.ran == [("SELECT", GIVEN)] * 2
    assert executor.statements == 2
    assert executor._running == set()


@in_virtual_time
async def test_a_statement_waits_for_a_connection_as_long_as_its_caller_does(world: World) -> None:
    executor = world.made()
    await until(5)
    for deadline in (5.2, 5.7, 5.005, 4.0):
        await asyncio.wait([run(executor, deadline)])
    assert world.timeouts == [0.2, 0.5, 0.01, 0.01]


@in_virtual_time
async def test_a_statement_goes_on_without_a_caller_that_is_late(world: World) -> None:
    executor = world.made()
    unheard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    world.takes_seconds = 5.0
    world.fails = psycopg.errors.DiskFull()
    await until(2)
    work = run(executor, 3.5)
    await until(3.4)
    assert not work.done()
    with pytest.raises(TimeoutError):
        await work
    assert now() == 3.5
    assert len(executor._in_use) == len(executor._running) == 1
    await until(7.5)
    assert len(executor._in_use) == len(executor._running) == 0
    del work
    gc.collect()
    await asyncio.sleep(1)
    assert unheard == []


@in_virtual_time
async def test_statements_that_search_leave_half_of_the_connections_to_others(world: World) -> None:
    executor = PostgresExecutor(URL, 6, 0.5)
    world.takes_seconds = 5.0
    searches = [run(executor, planned=True) for _ in range(7)]
    others = [run(executor) for _ in range(3)]
    await until(1)
    assert [one.kinds for one in world.connections] == [["planned"]] * 3 + [["binary"]] * 3
    await until(6)
    assert [one.kinds for one in world.connections][6:] == [["planned"]] * 3
    assert await asyncio.gather(*searches, *others) == [[(1,)]] * 10
    assert now() == 15


@in_virtual_time
async def test_a_search_keeps_its_place_when_its_caller_gives_up(world: World) -> None:
    executor = world.made()
    world.takes_seconds = 5.0
    other = run(executor)
    await until(2)
    searches = [run(executor, deadline, planned=True) for deadline in (3, 4, 20)]
    for late in searches[:2]:
        with pytest.raises(TimeoutError):
            await late
    assert await other == [(1,)]
    await until(6.5)
    assert [one.kinds for one in world.connections] == [["binary"], ["planned"]]
    assert await searches[2] == [(1,)]
    assert now() == 12


@in_virtual_time
async def test_a_statement_whose_task_is_cancelled_is_not_logged(world: World) -> None:
    executor = world.made()
    unheard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    world.takes_seconds = None
    work = run(executor)
    await until(1)
    [statement] = executor._running
    statement.cancel()
    await asyncio.wait([work])
    assert (unheard, executor._in_use, executor._running) == ([], {}, set())


@in_virtual_time
async def test_a_commit_with_a_warning_is_lost_for_who_heeds_it(world: World) -> None:
    executor = world.made()
    assert await run(executor, heed=True) == [(1,)]
    world.warns = True
    assert await run(executor) == [(1,)]
    with pytest.raises(LostError) as lost:
        await run(executor, heed=True)
    assert lost.value.__cause__ is None


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (psycopg.errors.DeadlockDetected(), psycopg.errors.DeadlockDetected),
        (psycopg.errors.SerializationFailure(), psycopg.errors.SerializationFailure),
        (psycopg.errors.NumericValueOutOfRange(), InvalidFieldError),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "y"), InvalidFieldError),
        (psycopg.errors.DiskFull(), LostError),
        (psycopg.errors.AdminShutdown(), LostError),
        (psycopg.errors.SyntaxError(), OutboxUnavailableError),
    ],
)
@in_virtual_time
async def test_an_error_is_of_the_value_of_the_database_or_of_the_statement(
    world: World, error: Exception, raised: type[Exception]
) -> None:
    executor = world.made()
    world.fails = error
    with capture_logs() as logs, pytest.raises(raised) as caught:
        await run(executor)
    assert caught.value is error or caught.value.__cause__ is error
    warned = {"event": "statement_failed", "reason": "SyntaxError", "log_level": "warning"}
    assert logs == ([warned] if raised is OutboxUnavailableError else [])
    assert executor._in_use == {}


@in_virtual_time
async def test_a_connection_that_breaks_or_is_not_there_is_a_loss(world: World) -> None:
    executor = world.made()
    world.closes, world.fails = True, psycopg.errors.SyntaxError()
    with pytest.raises(LostError):
        await run(executor)
    for refusal in (psycopg_pool.PoolTimeout(), psycopg.errors.SyntaxError()):
        world.refuses = refusal
        with pytest.raises(LostError) as lost:
            await run(executor)
        assert lost.value.__cause__ is refusal
    assert executor.statements == 1


@in_virtual_time
async def test_the_end_shuts_what_runs_and_waits_for_it(world: World) -> None:
    world.takes_seconds = None
    world.fails = psycopg.errors.AdminShutdown()
    async with world.made() as executor:
        work = run(executor)
        await until(1)
    assert world.shut == [(1, world.connections[0])]
    assert world.steps[-1] == ("closed", {"timeout": 2.0}, 0)
    with pytest.raises(LostError):
        await work


@in_virtual_time
async def test_a_connection_is_given_up_twenty_seconds_after_the_deadline(world: World) -> None:
    executor = world.made()
    await until(3)
    await asyncio.wait([run(executor, 4)])
    world.fails = psycopg.errors.DiskFull()
    await asyncio.wait([run(executor, 4)])
    world.takes_seconds = None
    await asyncio.wait([run(executor, 5)])
    assert now() == 5
    await until(24.9)
    assert world.shut == []
    await until(60)
    assert world.shut == [(25, world.connections[2])]


@in_virtual_time
async def test_only_so_many_connections_are_given_up_in_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend of each may still run."""
    monkeypatch.setattr(module, "_MAX_ABANDONED", 2)
    monkeypatch.setattr(module, "shut", lambda one: world.shut.append((now(), one)))
    executor = world.made()
    world.takes_seconds = None
    statements = [run(executor, deadline) for deadline in (1, 1, 1, 2, 90)]
    await until(30)
    assert [at for at, _ in world.shut] == [21, 21]
    assert {one for _, one in world.shut} < set(world.connections[:3])
    await until(41)
    await executor.renew()
    assert len(world.shut) == 2
    await until(42)
    await executor.renew()
    again = world.shut[2:]
    assert [at for at, _ in again] == [42, 42]
    assert {one for _, one in again} < set(world.connections[:4])
    assert world.steps == ["drained", "drained"]
    world.may_end.set()
    await asyncio.wait(statements)


@in_virtual_time
async def test_a_renewal_gives_up_what_is_late_only(world: World) -> None:
    executor = world.made()
    world.takes_seconds = None
    statements = [run(executor, deadline) for deadline in (4, 5, 6)]
    await until(5)
    await executor.renew()
    assert world.shut == [(5, world.connections[0])]
    world.may_end.set()
    await asyncio.wait(statements)
