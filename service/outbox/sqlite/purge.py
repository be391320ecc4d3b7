"""The purge of an SQLite outbox: removes pages of old delivered rows and gives their space back."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import NamedTuple

from service.errors import OutboxBusyError
from service.outbox.clock import Clock
from service.outbox.retention import PAUSE_SECONDS, PurgedPage
from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.lock import WriterLock
from service.outbox.sqlite.notes import write_audit
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.removal import Removal
from service.outbox.sqlite.writer import SqliteWriter

# Settled rows come roughly in the order of their acceptance, so a page ends the pass when all its
# rows were accepted after the limit.
PURGE_PAGE = """
SELECT max(seq), min(accepted_at_ms) FROM (
    SELECT seq FROM outbox_done WHERE seq > :after ORDER BY seq LIMIT 500)
    CROSS JOIN outbox USING (seq)
"""
PURGE_PICK = """
SELECT json_group_array(seq) FROM outbox_done
WHERE seq > :after AND seq <= :upto AND dead = 0 AND settled_at_ms <= :before
"""
_VACUUM_PAGES = 1000
_MAKES_WAY = "A service is starting, so the purge stopped early. Repeat the command."


class _Page(NamedTuple):
    ended: PurgedPage
    freed: dict[str, int]


class SqlitePurger:
    """Removes pages by jobs. Ages are by the clock that settled the rows."""

    def __init__(
        self,
        writer: SqliteWriter,
        jobs: JobRunner,
        counts: StoredCounts,
        removal: Removal,
        clock: Clock,
        lock: WriterLock,
    ) -> None:
        self._writer = writer
        self._jobs = jobs
        self._counts = counts
        self._removal = removal
        self._clock = clock
        self._lock = lock

    async def purge_page(self, after_seq: int, older_than_seconds: float) -> PurgedPage:
        """Remove old delivered rows of one page after `after_seq`, atomically.

        Raises OutboxBusyError when this process is a command and a service waits for the file.
        """
        if self._lock.is_wanted:
            raise OutboxBusyError(_MAKES_WAY)

        def run(connection: sqlite3.Connection) -> _Page:
            before = self._clock.now_ms() - int(older_than_seconds * 1000)
            [(upto, accepted_at_ms)] = connection.execute(
                PURGE_PAGE, {"after": after_seq}
            ).fetchall()
            if upto is None:
                return _Page(PurgedPage(None, 0), {})
            values = {"after": after_seq, "upto": upto, "before": before}
            [(seqs,)] = connection.execute(PURGE_PICK, values).fetchall()
            freed, removed = self._removal.remove(connection, seqs)
            is_last = accepted_at_ms > before
            return _Page(PurgedPage(None if is_last else upto, removed), freed)

        page = await self._jobs.run(run, lambda page: self._counts.free_bytes(page.freed))
        return page.ended

    async def purge_ended(self, removed: int, actor: str | None) -> None:
        """Note the purge in the audit unless `actor` is None, and give the space back.

        A command leaves the space to a service that waits for the file.
        """
        if actor is not None:
            detail = f"{removed} delivered rows"
            await self._jobs.run(lambda connection: _audited(connection, actor, detail))
        more = True
        while more and not self._lock.is_wanted:
            more = await self._writer.between_commits(_vacuum_some)
            await asyncio.sleep(PAUSE_SECONDS if more else 0)


def _audited(connection: sqlite3.Connection, actor: str, detail: str) -> bool:
    write_audit(connection, actor, "purge", detail)
    return True


def _vacuum_some(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system; returns whether many are left.

    `executescript` runs the pragma to its end; `execute` would free one page.
    """
    [(free,)] = connection.execute("PRAGMA freelist_count").fetchall()
    if free < _VACUUM_PAGES:
        return False
    connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    return True
