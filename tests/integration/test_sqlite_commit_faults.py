"""The commits of an SQLite outbox after a fault: a log that can be trusted, smaller groups."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.sqlite import connection
from service.outbox.sqlite.commit import retry_smaller
from service.outbox.sqlite.work import Waiting
from tests.support.commit_room import SYNCED, Made, loop_future, synchronous
from tests.support.ended_threads import ended_threads
from tests.support.work_kinds import Kind, fault, sqlite_error


@pytest.fixture
async def made(path: Path) -> AsyncIterator[Made]:
    async with ended_threads():
        found = Made(path)
        yield found
        await found.commits.stop()


async def test_after_an_io_error_the_log_is_suspect_and_the_connection_closed(made: Made) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        raise sqlite_error("SQLITE_IOERR")

    await made.write(made.synced)
    with capture_logs() as logs, pytest.raises(OutboxUnavailableError):
        await made.commits.run(fails)
    assert made.lock.suspects_log
    assert made.recorder.counted == {"io_errors": 1}
    [line] = logs
    assert line["event"] == "disk_failed"
    assert "SQLITE_IOERR" in line["reason"]
    with pytest.raises(OutboxUnavailableError):
        await made.commits.run(synchronous)
    await made.write(made.synced)
    assert not made.lock.suspects_log
    assert made.rows_without_log() == 1


async def test_after_another_error_the_connection_stays(made: Made) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        raise sqlite_error("SQLITE_BUSY")

    await made.write(made.synced)
    with pytest.raises(OutboxUnavailableError):
        await made.commits.run(fails)
    assert not made.lock.suspects_log
    assert await made.commits.run(synchronous) == SYNCED


@pytest.mark.parametrize(("name", "suspects"), [("SQLITE_IOERR", True), ("SQLITE_FULL", False)])
async def test_a_start_that_fails_leaves_no_connection_and_is_repeated(
    made: Made, name: str, *, suspects: bool
) -> None:
    made.preparation.error = fault(name)
    with pytest.raises(OutboxUnavailableError):
        await made.commits.open()
    assert made.lock.suspects_log is suspects
    assert made.descriptors() == 1  # the one that only reads
    await made.write(made.synced)
    assert made.rows() == 1


async def test_a_connection_that_hangs_is_abandoned(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_CLOSE_SECONDS", 0.05)
    await made.write(made.synced)
    released = threading.Event()
    hanging = asyncio.ensure_future(made.commits.run(lambda _: released.wait(20)))
    await asyncio.sleep(0)
    await made.commits.close()
    released.set()
    await asyncio.gather(hanging, return_exceptions=True)


FIRST, SECOND = Kind(), Kind()


@pytest.mark.parametrize(
    ("items", "error", "smaller"),
    [
        ((2,), fault("SQLITE_BUSY"), []),
        ((2, 1), fault("SQLITE_BUSY"), []),
        ((2, 1), fault("SQLITE_FULL"), [(2,), (0, 1)]),
        ((3,), fault("SQLITE_FULL"), []),
        ((2, 1), ValueError(), [(2,), (0, 1)]),
        ((2,), ValueError(), [(1,), (1,)]),
        ((3,), fault("SQLITE_CONSTRAINT"), [(1,), (1,), (1,)]),
        ((1,), ValueError(), []),
        ((), ValueError(), []),
    ],
)
async def test_a_group_that_failed_is_tried_in_smaller_ones_where_that_may_help(
    items: tuple[int, ...], error: Exception, smaller: list[tuple[int, ...]]
) -> None:
    kinds = (FIRST, SECOND)
    group = {
        kind: Waiting(range(count), [loop_future() for _ in range(count)])
        for kind, count in zip(kinds, items, strict=False)
    }
    found = retry_smaller(group, error)  # type: ignore[arg-type]
    counts = [tuple(len(one[kind].items) if kind in one else 0 for kind in kinds) for one in found]
    assert counts == [(*one, 0)[:2] for one in smaller]
    if found:
        assert [pair for one in found for pair in pairs(one)] == pairs(group)


def pairs(group: dict[Kind, Waiting[Any]]) -> list[tuple[Any, Any]]:
    return [pair for one in group.values() for pair in zip(one.items, one.futures, strict=True)]
