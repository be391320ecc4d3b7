"""The reading connection: when it is opened, what its faults mean, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.reader import SqliteReader
from service.outbox.sqlite.timings import WriterTimings
from tests.support.virtual_time import in_virtual_time

FILE = Path("outbox.db")


class Connection:
    """Answers with what it was asked, after a time, or with an error."""

    def __init__(self) -> None:
        self.opened: list[Path] = []
        self.closed = 0
        self.seconds = 0.0
        self.fault: Exception | None = None
        self.fault_of_close: Exception | None = None

    async def run(self, *given: Any, **named: Any) -> Any:
        await asyncio.sleep(self.seconds)
        if self.fault:
            raise OutboxUnavailableError from self.fault
        return given, named

    @contextlib.asynccontextmanager
    async def open(self, path: Path) -> AsyncIterator[Connection]:
        await asyncio.sleep(0.01)
        self.opened.append(path)
        yield self
        self.closed += 1
        if self.fault_of_close:
            raise self.fault_of_close


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    one = Connection()
    monkeypatch.setattr("service.outbox.sqlite.reader.open_reader", one.open)
    return one


def reader_of(damage: Damage) -> SqliteReader:
    return SqliteReader(FILE, WriterTimings(stall_seconds=3.0), damage)


def test_it_is_opened_once_by_the_first_reads(connection: Connection) -> None:
    @in_virtual_time
    async def main() -> None:
        reader = reader_of(Damage(FILE))
        assert connection.opened == []
        both = await asyncio.gather(reader.run("a", 1, b=2), reader.run_soon("c", 3, d=4))  # type: ignore[arg-type]
        assert both == [(("a", 1), {"b": 2}), (("c", 3), {"d": 4})]
        await reader.run("e")  # type: ignore[arg-type]
        assert connection.opened == [FILE]

    main()


@pytest.mark.parametrize(
    ("code", "is_found"), [(sqlite3.SQLITE_CORRUPT, True), (sqlite3.SQLITE_BUSY, False)]
)
def test_a_read_that_finds_damage_is_remembered(
    connection: Connection, code: int, *, is_found: bool
) -> None:
    @in_virtual_time
    async def main() -> None:
        connection.fault, damage = sqlite3.DatabaseError("a page"), Damage(FILE)
        connection.fault.sqlite_errorcode = code
        with pytest.raises(OutboxUnavailableError):
            await reader_of(damage).run("a")  # type: ignore[arg-type]
        assert damage.is_found is is_found

    main()


def test_a_request_does_not_wait_for_a_disk_that_hangs(connection: Connection) -> None:
    @in_virtual_time
    async def main() -> None:
        reader, loop = reader_of(Damage(FILE)), asyncio.get_running_loop()
        connection.seconds = 100
        with pytest.raises(OutboxUnavailableError, match="does not answer"):
            await reader.run_soon("a")  # type: ignore[arg-type]
        assert loop.time() == 3
        await reader.run("a")  # type: ignore[arg-type]
        assert loop.time() == 103

    main()


def test_a_closed_reader_opens_nothing_more(connection: Connection) -> None:
    @in_virtual_time
    async def main() -> None:
        reader = reader_of(Damage(FILE))
        await reader.run("a")  # type: ignore[arg-type]
        connection.fault_of_close = OutboxUnavailableError()
        await reader.close()
        assert connection.closed == 1
        with pytest.raises(OutboxUnavailableError, match="not open"):
            await reader.run("a")  # type: ignore[arg-type]
        assert connection.opened == [FILE]

    main()
