"""Keeping an SQLite outbox's files small: the write-ahead log and its room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.commit import SqliteCommits
from inngest_outbox.outbox.sqlite.file.disk import Disk
from inngest_outbox.outbox.sqlite.file.lock import WriterLock
from inngest_outbox.outbox.sqlite.writer import SqliteWriter

LARGE_LOG_BYTES = 64 * 1024 * 1024
_EVERY_SECONDS = 5.0
_FILL_PAUSE_SECONDS = 0.02
_WARN_SECONDS = 60.0

log = structlog.get_logger(__name__)


class SqliteMaintenance:
    """Looks after the log of `commits`, which is on `disk`. `clock` is in seconds."""

    def __init__(
        self,
        disk: Disk,
        lock: WriterLock,
        commits: SqliteCommits,
        writer: SqliteWriter,
        clock: Callable[[], float],
    ) -> None:
        self._log = commits.log
        self._disk = disk
        self._lock = lock
        self._commits = commits
        self._writer = writer
        self._commits_seen = self._commits_checkpointed = 0
        self._filled_bytes = 0
        self._clock = clock
        self._warned_at = float("-inf")

    async def run(self) -> None:
        """Fill the log, and maintain it every few seconds, until cancelled."""
        while True:
            await _logged(self.fill())
            await asyncio.sleep(_EVERY_SECONDS)
            await _logged(self.maintain())

    async def fill(self) -> None:
        """Write the room of the log that was only allocated, a piece at a time.

        On a disk that is nearly full it stays as it is. Continues where the last call stopped.
        """
        while not self._disk.is_short():
            at = self._filled_bytes
            self._filled_bytes = await self._writer.between_commits(self._log.fill, at)
            if self._filled_bytes == at:
                return
            await asyncio.sleep(_FILL_PAUSE_SECONDS)

    async def maintain(self) -> None:
        """Checkpoint the write-ahead log when nothing was written since the last call.

        A log above its preallocated size is then truncated; on a disk that is nearly full, at once.
        Under load the writer's checkpoints let the log begin again. While a reader holds a
        transaction open it can only grow, which is logged. Missing room is preallocated again.
        """
        self._lock.keep_note()
        commits = self._commits.count
        idle, self._commits_seen = commits == self._commits_seen, commits
        is_large = self._log.is_large
        wants_room = is_large and self._disk.is_short()
        if commits != self._commits_checkpointed and (idle or wants_room):
            await self._writer.between_commits(
                self._log.truncate if is_large else self._log.checkpoint
            )
            if is_large:
                self._filled_bytes = 0
            if not self._log.is_large:
                self._commits_checkpointed = commits
        if self._log.lacks_room and not self._disk.is_short():
            await self._writer.between_commits(self._log.preallocate)
            self._filled_bytes = 0
        self._warn_if_large()

    def _warn_if_large(self) -> None:
        now, size = self._clock(), self._log.size
        if size > LARGE_LOG_BYTES and now - self._warned_at > _WARN_SECONDS:
            self._warned_at = now
            log.warning("write_ahead_log_is_large", bytes=size, cause="a long reader, or the disk")


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except OutboxUnavailableError as error:
        log.warning("maintenance_failed", reason=str(error))
    except Exception:
        log.exception("maintenance_failed")
