"""The file and its journal: what one needs of the other.

The store calls `Journal` on the way of a post: may a group be put, put it, mark what a person
removed. The journal reads the file through `JournalledFile` and brings back through it what the
file has never had. The invariant: an event comes back once, and what a start has is noted as had
when all of it came back.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from inngest_outbox.outbox.clock import Clock
from inngest_outbox.outbox.event import decode_meta, encode_meta
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.sqlite.file.connection import SQL, Reads
from inngest_outbox.outbox.sqlite.state import CachedState, StoredCounts

Range = tuple[int, int]
"""The first and the last number of some rows."""


class JournalRow(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """An event with everything that a row has. `seq` is its number, `meta` encoded.

    A row that is not `dead` comes back as pending. `history` is a JSON array, None without one.
    """

    seq: int
    id: str
    name: str
    owner: str
    user_id: str
    accepted_at_ms: int
    payload: bytes
    meta: str | None = None
    key: str | None = None
    key_digest: str | None = None
    dead: bool = False
    attempts: int = 0
    sends: int = 0
    isolated: bool = False
    first_sent_at_ms: int | None = None
    settled_at_ms: int | None = None
    reason: str | None = None
    detail: str | None = None
    history: str | None = None


class Put(Protocol):
    """A group on its way to the bucket.

    `done` ends when every event of the group may be answered, and raises OutboxUnavailableError
    where they may not: they stay in the file and are delivered, and the put is repeated.
    """

    done: asyncio.Future[None]

    def committed(self) -> None:
        """The group is in the file."""
        ...

    def void(self) -> None:
        """Take the group back: its commit failed. No later group is done before that is known."""
        ...


class Journal(Protocol):
    """The journal on the way of a post."""

    def wait_seconds(self) -> float:
        """Seconds until a group may be put, 0 for now.

        Raises OutboxUnavailableError while events are refused because the bucket is away.
        """
        ...

    def put(self, rows: Sequence[JournalRow], repeats: Sequence[int]) -> Put:
        """Begin to put the rows, which have consecutive numbers; called in the writer's thread.

        `repeats` are numbers of earlier rows that are answered again: these must be there, too.
        """
        ...

    async def mark(self, removed: Sequence[tuple[int, str]]) -> None:
        """Note that the rows with these numbers and ids were removed by a person.

        Safe to repeat. Raises OutboxUnavailableError; the mark is then put later.
        """
        ...


class Known(msgspec.Struct, frozen=True, gc=False):
    """The knowledge of a file of an id in the journal.

    The numbers up to `ours` are seqs of this file; it has had all events up to `had`.
    """

    ours: int = 0
    had: int = 0


class Restored(msgspec.Struct, frozen=True, gc=False):
    """The numbers of rows that came back pending and dead, and of pending ones older than a day."""

    pending: int = 0
    dead: int = 0
    old: int = 0

    def plus(self, other: Restored) -> Restored:
        """Both together."""
        return Restored(self.pending + other.pending, self.dead + other.dead, self.old + other.old)


class ReturningRow(NamedTuple):
    """A row of the start `id` that comes back under the number `seq`."""

    seq: int
    id: str
    row: JournalRow


_PAST_ALL = 2**62
_Write = Callable[..., Awaitable[Any]]


class JournalledFile:
    """The outbox's file. `write` is the writer's `run`, `take` gives the numbers of new rows."""

    def __init__(
        self,
        reader: Reads,
        write: _Write,
        take: Callable[[sqlite3.Connection, int], int],
        *,
        state: CachedState,
        counts: StoredCounts,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._write = write
        self._take = take
        self._state = state
        self._counts = counts
        self._clock = clock
        self._wake = wake

    @property
    def id(self) -> str:
        """The id of this start. Raises OutboxUnavailableError before the file was read."""
        return self._state.known_ids().prefix.hex()

    async def begin(self) -> dict[str, Known]:
        """Note that this start uses the journal; returns what earlier ones know, by their ids."""
        own, upto = self.id, self._state.first_seq - 1

        def run(connection: sqlite3.Connection) -> dict[str, Known]:
            connection.execute(SQL["JOURNAL_BEGIN"], {"id": own})
            connection.execute(SQL["JOURNAL_ENDED"], {"id": own, "upto": upto})
            known = known_starts(connection)
            del known[own]
            return known

        known: dict[str, Known] = await self._write(run)
        return known

    async def forget(self, ids: Collection[str]) -> None:
        """Drop what is known of ids that have nothing in the journal any more."""
        values = [{"id": one} for one in ids]
        await self._write(lambda connection: connection.executemany(SQL["JOURNAL_FORGET"], values))

    async def skip_to(self, number: int) -> None:
        """Give no row a number up to this one."""

        def run(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["JOURNAL_SKIP"], {"upto": number})
            if (first := self._take(connection, 0)) <= number:
                self._take(connection, number + 1 - first)

        await self._write(run)

    async def stored(self, ids: Sequence[str]) -> set[str]:
        """The ids of these that the file has."""
        values = {"ids": msgspec.json.encode(ids).decode()}
        rows = await self._reader.run(_fetch, "JOURNAL_STORED", values)
        return {one for (one,) in rows}

    async def kept(self) -> list[int]:
        """The numbers of all rows but the delivered ones, in order."""
        return [seq for (seq,) in await self._reader.run(_fetch, "JOURNAL_KEPT", {})]

    async def left(self, ranges: Sequence[Range]) -> dict[int, tuple[int, int]]:
        """By the first number of each range: its rows neither delivered nor dead, its dead ones."""
        values = {"ranges": msgspec.json.encode(ranges).decode()}
        rows = await self._reader.run(_fetch, "JOURNAL_LEFT", values)
        return {first: (waiting, dead) for first, waiting, dead in rows}

    async def rows(self, rows: Range, max_bytes: int | None = None) -> tuple[list[JournalRow], int]:
        """The rows of a range that are not delivered, and the number up to which they were read.

        Their `meta` has their ULIDs. Reading ends after `max_bytes` of payload.
        """

        def read(connection: sqlite3.Connection) -> tuple[list[JournalRow], int]:
            found, size = list[JournalRow](), 0
            values = dict(zip(("first", "last"), rows, strict=True))
            for one in connection.execute(SQL["JOURNAL_ROWS"], values):
                found.append(_row(one))
                size += len(found[-1].payload)
                if max_bytes is not None and size >= max_bytes:
                    return found, found[-1].seq
            return found, rows[1]

        return await self._reader.run(read)

    async def reserve(self, count: int) -> int:
        """The first of `count` numbers for rows that come back."""
        first: int = await self._write(lambda connection: self._take(connection, count))
        return first

    async def restore(self, rows: Sequence[ReturningRow]) -> Restored:
        """Bring back those of the rows that the file has not; of two with one id the last.

        They keep their ids and ULIDs. Pending ones may have been sent: Inngest is asked about them
        first where it can be. Atomic, safe to repeat.
        """

        def run(connection: sqlite3.Connection) -> list[JournalRow]:
            values = {"ids": msgspec.json.encode([one.row.id for one in rows]).decode()}
            there = {one for (one,) in connection.execute(SQL["JOURNAL_STORED"], values)}
            new = {one.row.id: one for one in rows if one.row.id not in there}
            for one in new.values():
                _write_row(connection, one, self._state.ran_ms())
            return [one.row for one in new.values()]

        back: list[JournalRow] = await self._write(run, self._restored)
        waiting = [row for row in back if not row.dead]
        since = self._clock.now_ms() - USED_MS
        old = sum(row.accepted_at_ms < since for row in waiting)
        return Restored(len(waiting), len(back) - len(waiting), old)

    async def had(self, id_: str, upto: int) -> None:
        """Note that the file has had all events of a start up to this number."""
        values = {"id": id_, "upto": upto}
        await self._write(lambda connection: connection.execute(SQL["JOURNAL_HAD"], values))

    def _restored(self, rows: Sequence[JournalRow]) -> None:
        for row in rows:
            self._counts.add_bytes({row.owner: len(row.payload)})
            if not row.dead:
                self._counts.returned({row.owner: 1})
        self._wake()


def known_starts(connection: sqlite3.Connection) -> dict[str, Known]:
    """The known starts, by their ids. One that runs has no end yet."""
    rows = connection.execute(SQL["JOURNAL_KNOWN"]).fetchall()
    return {one: Known(ours or 0, _PAST_ALL if ours is None else had) for one, ours, had in rows}


def _fetch(connection: sqlite3.Connection, name: str, values: dict[str, Any]) -> list[Any]:
    return connection.execute(SQL[name], values).fetchall()


def _row(found: Sequence[Any]) -> JournalRow:
    *fields, prefix = found
    row = JournalRow(*fields)
    meta = _with_ulid(row, InngestIds(bytes(prefix)))
    return msgspec.structs.replace(row, meta=meta, dead=bool(row.dead), isolated=bool(row.isolated))


def _with_ulid(row: JournalRow, ids: InngestIds, **changes: Any) -> str | None:
    """The row's meta with its ULID, by which Inngest knows the event."""
    meta = decode_meta(row.meta)
    ulid = ids.ulid(row.seq, row.accepted_at_ms, meta)
    return encode_meta(msgspec.structs.replace(meta, moved_id=ulid, **changes))


def _write_row(connection: sqlite3.Connection, one: ReturningRow, ran_ms: int) -> None:
    row = one.row
    values = {
        **msgspec.structs.asdict(row),
        "seq": one.seq,
        "meta": _with_ulid(row, InngestIds(bytes.fromhex(one.id)), restored=True),
        "due_at_ms": decode_meta(row.meta).due_at_ms,
        "sends": max(1, row.sends),
        "first_sent_at_ms": row.first_sent_at_ms or row.accepted_at_ms,
        "ran_ms": ran_ms,
    }
    connection.execute(SQL["JOURNAL_WRITE"], values)
    connection.execute(SQL["WRITE_DONE" if row.dead else "WRITE_READY"], values)
