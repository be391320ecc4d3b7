"""Changes by operators' commands, and the purge.

The invariant: nothing here touches a row under a claim, and every action of an operator leaves an
audit row in its own commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from inngest_outbox.errors import OutboxBusyError, OutboxUnavailableError
from inngest_outbox.outbox.audit import Act, ErasedRecords, act_of, new_act
from inngest_outbox.outbox.clock import Clock, wall_now_ms
from inngest_outbox.outbox.keys import RUN_SECONDS
from inngest_outbox.outbox.model import Named, Row, State
from inngest_outbox.outbox.sqlite.file.connection import SQL
from inngest_outbox.outbox.sqlite.file.journalled import Journal
from inngest_outbox.outbox.sqlite.file.lock import WriterLock
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog
from inngest_outbox.outbox.sqlite.inspector import matching
from inngest_outbox.outbox.sqlite.records import SqliteDelivery, SqliteScopes, write_audit
from inngest_outbox.outbox.sqlite.state import BytesCount, CachedState, Freed, StoredCounts
from inngest_outbox.outbox.sqlite.writer import SqliteWriter

PAUSE_SECONDS = 0.05
_VACUUM_PAGES = 1000
_READ = "A reader of the outbox's file keeps its log. Erase again when it has ended."
_MAKES_WAY = "A service is starting, so the purge stopped early. Repeat the command."


class PurgedPage(NamedTuple):
    """One step of a purge: where the next begins, None at the end, and how many rows it removed."""

    next_after: int | None
    removed: int


class _Changed(NamedTuple):
    ids: list[str]
    pending: dict[str, int]


class _Removed(NamedTuple):
    rows: list[tuple[int, str]]
    freed: Freed


class _Page(NamedTuple):
    ended: PurgedPage
    freed: dict[str, int]


class SqliteRepairs:
    """Changes rows through `writer`, and keeps the counts true."""

    def __init__(
        self,
        writer: SqliteWriter,
        delivery: SqliteDelivery,
        counts: StoredCounts,
        bytes_count: BytesCount,
        *,
        purger: SqlitePurger,
        payload_purger: SqlitePurger,
        scopes: SqliteScopes,
        log: WriteAheadLog,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self._scopes = scopes
        self._log = log
        self._writer = writer
        self._counts = counts
        self._bytes_count = bytes_count
        self.purge, self.purge_payloads = purger.purge, payload_purger.purge
        self.set_paused = delivery.set_paused

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """The named dead rows become pending, with the state DELIVERED the delivered ones.

        Returns their ids.
        """
        state = wanted.state or State.DEAD
        settled = msgspec.structs.replace(wanted, state=state).filter
        is_done = state in (State.DEAD, State.DELIVERED)

        def run(connection: sqlite3.Connection) -> _Changed:
            now = wall_now_ms()
            found = matching(connection, settled, now) if is_done else []
            rows = [row for row in found if row.has_payload]
            values = {"seqs": _seqs(rows), "now": now, "note": f"replayed by {actor}"}
            connection.execute(SQL["REPLAY"], values)
            connection.execute(SQL["REPLAY_END"], values)
            ids = [row.id for row in rows]
            write_audit(connection, actor, "replay", act or act_of(wanted.filter), ids)
            return _Changed(ids, _by_owner(rows))

        return (await self._writer.run(run, lambda done: self._counts.returned(done.pending))).ids

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Remove the named rows that are not under a claim; returns their ids."""

        def run(connection: sqlite3.Connection) -> _Removed:
            found = matching(connection, wanted.filter, wall_now_ms())
            rows = [row for row in found if row.state is not State.DELIVERING]
            pending = _by_owner([row for row in rows if row.state is State.PENDING])
            stored_bytes, _ = _remove(connection, _seqs(rows), self._bytes_count)
            ids = [row.id for row in rows]
            write_audit(connection, actor, "discard", act or act_of(wanted.filter), ids)
            return _Removed([(row.seq, row.id) for row in rows], Freed(pending, stored_bytes))

        done = await self._writer.run(run, lambda done: self._counts.free(done.freed))
        if self._journal:
            await self._journal.mark(done.rows)
        return [event_id for _, event_id in done.rows]

    async def erase_records(self, owner: str, *, actor: str) -> ErasedRecords:
        """As the port says; then empty the log.

        Raises OutboxUnavailableError while a reader keeps the log.
        """
        erased = await self._scopes.erase(owner, actor=actor)
        if not await self._writer.between_commits(self._log.truncate):
            raise OutboxUnavailableError(_READ)
        return erased


class SqlitePurger:
    """Removes pages of old delivered rows, or of their payloads, and gives the space back."""

    def __init__(
        self,
        writer: SqliteWriter,
        counts: StoredCounts,
        bytes_count: BytesCount,
        clock: Clock,
        state: CachedState,
        lock: WriterLock,
        *,
        only_payloads: bool = False,
    ) -> None:
        self._pick = "PAYLOAD_PICK" if only_payloads else "PURGE_PICK"
        self._take = _remove_payloads if only_payloads else _remove
        self._writer = writer
        self._counts = counts
        self._bytes_count = bytes_count
        self._clock = clock
        self._state = state
        self._lock = lock

    async def purge(self, *, older_than_seconds: float, actor: str | None = None) -> int:
        """As the port says, in pages with a pause.

        The pages before an error stay removed. OutboxBusyError says that the purge makes way for
        another process; what was removed is in the audit then, too.
        """
        gone = 0
        after: int | None = 0
        try:
            while after is not None:
                after, removed = await self.purge_page(after, older_than_seconds)
                gone += removed
                await asyncio.sleep(PAUSE_SECONDS if removed else 0)
        except OutboxBusyError:
            if gone:
                await self.purge_ended(gone, actor)
            raise
        if gone:
            await self.purge_ended(gone, actor)
        return gone

    async def purge_page(self, after_seq: int, older_than_seconds: float) -> PurgedPage:
        """Remove old delivered rows of one page after `after_seq`, atomically.

        A row is old by the wall clock, by the store's own, and by the time that services have run
        since: a day, or `older_than_seconds` where that is less. Raises OutboxBusyError when this
        process is a command and a service waits for the file.
        """
        if self._lock.is_wanted:
            raise OutboxBusyError(_MAKES_WAY)

        def run(connection: sqlite3.Connection) -> _Page:
            before = self._clock.earliest_ms() - int(older_than_seconds * 1000)
            ran = self._state.ran_ms() - int(min(older_than_seconds, RUN_SECONDS) * 1000)
            page = connection.execute(SQL["PURGE_PAGE"], {"after": after_seq}).fetchall()
            [(upto, accepted_at_ms)] = page
            if upto is None:
                return _Page(PurgedPage(None, 0), {})
            values = {"after": after_seq, "upto": upto, "before": before, "ran_before": ran}
            [(seqs,)] = connection.execute(SQL[self._pick], values).fetchall()
            freed, removed = self._take(connection, seqs, self._bytes_count)
            is_last = accepted_at_ms > before
            return _Page(PurgedPage(None if is_last else upto, removed), freed)

        page = await self._writer.run(run, lambda page: self._counts.free_bytes(page.freed))
        return page.ended

    async def purge_ended(self, removed: int, actor: str | None) -> None:
        """Note the purge in the audit unless `actor` is None, and give the space back.

        A command leaves the space to a service that waits for the file.
        """
        if actor is not None:
            act = new_act(f"delivered rows: {removed}")
            await self._writer.run(lambda connection: write_audit(connection, actor, "purge", act))
        more = True
        while more and not self._lock.is_wanted:
            more = await self._writer.between_commits(_vacuum_some)
            await asyncio.sleep(PAUSE_SECONDS if more else 0)


def _remove_payloads(
    connection: sqlite3.Connection, seqs: str, count: BytesCount
) -> tuple[dict[str, int], int]:
    """Remove the payloads of the rows of a JSON array, which are settled; returns as `_remove`."""
    freed = _counted_bytes(connection, seqs, count)
    return freed, connection.execute(SQL["REMOVE_PAYLOAD"], {"seqs": seqs}).rowcount


def _counted_bytes(connection: sqlite3.Connection, seqs: str, count: BytesCount) -> dict[str, int]:
    values = {"seqs": seqs, "counted_to": count.counted_to, "newest": count.newest}
    return dict(connection.execute(SQL["REMOVED_BYTES"], values).fetchall())


def _remove(
    connection: sqlite3.Connection, seqs: str, count: BytesCount
) -> tuple[dict[str, int], int]:
    """Remove the rows of a JSON array, which are under no claim.

    Returns the bytes by owner that had been counted, and how many rows.
    """
    freed = _counted_bytes(connection, seqs, count)
    for name in ("REMEMBER_LAST", "REMOVE_READY", "REMOVE_SENT", "REMOVE_DONE"):
        connection.execute(SQL[name], {"seqs": seqs})
    return freed, connection.execute(SQL["REMOVE_ROW"], {"seqs": seqs}).rowcount


def _vacuum_some(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system; returns whether many are left.

    `executescript` runs the pragma to its end; `execute` would free one page.
    """
    [(free,)] = connection.execute("PRAGMA freelist_count").fetchall()
    if free < _VACUUM_PAGES:
        return False
    connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    return True


def _seqs(rows: Sequence[Row]) -> str:
    return msgspec.json.encode([row.seq for row in rows]).decode()


def _by_owner(rows: Sequence[Row]) -> dict[str, int]:
    return dict(Counter(row.owner for row in rows))
