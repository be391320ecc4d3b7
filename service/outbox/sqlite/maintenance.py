"""Keeping an SQLite outbox small: old rows, free pages, the write-ahead log.

Each step is short and leaves the writer to requests before the next. The invariant: nothing here
removes a row that is not delivered.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from service.outbox.sqlite.changes import audited, purge_page
from service.outbox.sqlite.disk import Disk
from service.outbox.sqlite.wal import SqliteLog
from service.outbox.sqlite.writer import SqliteWriter

LARGE_LOG_BYTES = 64 * 1024 * 1024
_PAUSE_SECONDS = 0.05
_VACUUM_PAGES = 1000
_WARN_SECONDS = 60.0

log = structlog.get_logger(__name__)


class SqliteUpkeep:
    """`write` runs one job in a transaction of `writer`, whose log is on `disk`."""

    def __init__(
        self,
        write_ahead_log: SqliteLog,
        disk: Disk,
        writer: SqliteWriter,
        write: Callable[[Any], Awaitable[Any]],
    ) -> None:
        self._log = write_ahead_log
        self._disk = disk
        self._writer = writer
        self._write = write
        self._groups_seen = self._groups_moved = 0
        self._warned_at = -_WARN_SECONDS

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago, and give the space back; returns how many."""
        gone = 0
        after: int | None = 0
        while after is not None:
            after, removed = await self._write(purge_page(after, older_than_seconds))
            gone += removed
            await asyncio.sleep(_PAUSE_SECONDS if removed else 0)
        if gone and actor is not None:
            await self._write(audited(actor, "purge", f"{gone} delivered rows"))
        more = gone > 0
        while more:
            more = await self._writer.outside(_vacuum_some)
            await asyncio.sleep(_PAUSE_SECONDS if more else 0)
        return gone

    async def tidy(self) -> None:
        """Move the write-ahead log into the file when nothing was written since the last call.

        A log above its reserve is cut then, and at once on a disk that is nearly full. Under load
        the writer's own checkpoints reuse it; beside a reader that holds a transaction open it can
        only grow, which is logged. A reserve that is missing is set aside again.
        """
        groups = self._writer.groups
        idle, self._groups_seen = groups == self._groups_seen, groups
        is_large = self._log.is_large
        if groups != self._groups_moved and (idle or (is_large and self._disk.is_short())):
            await self._writer.outside(self._log.cut if is_large else self._log.move)
            if not self._log.is_large:
                self._groups_moved = groups
        if self._log.lacks_reserve and not self._disk.is_short():
            await self._writer.outside(self._log.reserve)
        now, size = time.monotonic(), self._log.size
        if size > LARGE_LOG_BYTES and now - self._warned_at > _WARN_SECONDS:
            self._warned_at = now
            log.warning("write_ahead_log_is_large", bytes=size, cause="a long reader, or the disk")


def _vacuum_some(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system; whether more are worth it.

    `executescript` runs the pragma to its end; `execute` would free one page.
    """
    [(free,)] = connection.execute("PRAGMA freelist_count").fetchall()
    if free < _VACUUM_PAGES:
        return False
    connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    return True
