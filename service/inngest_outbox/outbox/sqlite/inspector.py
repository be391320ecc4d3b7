"""Looking into an SQLite outbox, live or a copy, without ever blocking its writer.

Needs a read-only connection and nothing else, so that the `outbox` script can use it beside a
running service. Every statement is one short read transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from inngest_outbox.outbox.audit import AuditRecord, id_start, records
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import decode_meta
from inngest_outbox.outbox.figures import SOON_MS, DeadGroup, OwnerShare, Stats
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Note, Reach, Row, State
from inngest_outbox.outbox.sqlite.file.connection import SQL, Reads
from inngest_outbox.outbox.sqlite.file.disk import beside
from inngest_outbox.outbox.sqlite.records import read_delivery

PAST_ALL = 2**63 - 1

_decode_history = msgspec.json.Decoder(tuple[Note, ...]).decode
_STATE, _ISOLATED, _ACCEPTED_AT_MS = 4, 7, 8  # columns of ROWS
_COMPARED = {
    "owner": "owner = :owner",
    "user_id": "user_id = :user_id",
    "name": "name = :name",
    "reason": "reason = :reason",
    "since_ms": "accepted_at_ms >= :since_ms",
    "until_ms": "accepted_at_ms < :until_ms",
    "before_seq": "seq < :before_seq",
    "after_seq": "seq > :after_seq",
    "id_prefix": "event_id >= :id_prefix AND event_id < :prefix_end",
}
_CONTAINED = {
    "user_part": "instr(lower(user_id), lower(:user_part)) > 0",
    "name_part": "instr(lower(name), lower(:name_part)) > 0",
    "reason_part": "instr(lower(reason), lower(:reason_part)) > 0",
    "payload_part": (
        "instr((SELECT payload FROM outbox AS p WHERE p.seq = outbox_rows.seq), :payload_part) > 0"
    ),
}
# Reading a state reads no row of another. Many ids may share a prefix: the limit bounds the read.
_BY_IDS = "json_each(:ids) CROSS JOIN outbox_rows ON event_id = value"
_BY_ALIAS = (
    "(SELECT seq FROM outbox WHERE owner = :owner AND meta ->> 'wire_id' = :alias"
    " AND substr(meta ->> 'wire_id', 1, 255) = substr(:alias, 1, 255)"
    " AND meta ->> 'wire_id' <> ''"
    " UNION SELECT seq FROM outbox WHERE meta ->> 'moved_id' = :alias)"
    " CROSS JOIN outbox_rows USING (seq)"
)
_BY_PREFIX = (
    "(SELECT seq FROM outbox WHERE event_id >= :id_prefix AND event_id < :prefix_end"
    " ORDER BY event_id DESC LIMIT 10000) CROSS JOIN outbox_rows USING (seq)"
)
_OF_STATE = {
    State.PENDING: "(SELECT seq FROM outbox_ready) CROSS JOIN outbox_rows USING (seq)",
    State.DELIVERING: "(SELECT seq FROM outbox_claims) CROSS JOIN outbox_rows USING (seq)",
    State.SENT: "(SELECT seq FROM outbox_sent) CROSS JOIN outbox_rows USING (seq)",
    State.DELIVERED: (
        "(SELECT seq FROM outbox_done WHERE dead = 0) CROSS JOIN outbox_rows USING (seq)"
    ),
    State.DEAD: "(SELECT seq FROM outbox_done WHERE dead = 1) CROSS JOIN outbox_rows USING (seq)",
}


class SqliteInspector:
    """The Inspector of the outbox at `path`, over a connection that reads."""

    def __init__(self, reads: Reads, path: Path) -> None:
        self._reads = reads
        self._path = path

    async def rows(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first."""
        return await self._reads.run(matching, wanted, wall_now_ms())

    async def count(self, wanted: Filter) -> int:
        """The number of matching rows, at most `wanted.limit`."""
        text, values = _searched(wanted, wall_now_ms())
        rows = await self._reads.run(_fetch, f"SELECT count(*) FROM (SELECT seq {text})", values)
        return int(rows[0][0])

    async def stats(self) -> Stats:
        """The figures."""
        now = wall_now_ms()
        ready, claimed, sent, done, dead, oldest, due, delivery = await self._reads.run(_stats, now)
        return Stats(
            pending=ready,
            delivering=claimed,
            sent=sent,
            delivered=done - dead,
            dead=dead,
            oldest_pending_seconds=_age(oldest, now),
            oldest_due_seconds=_age(due, now),
            delivery=delivery,
            database_bytes=_size(self._path),
            wal_bytes=_size(beside(self._path, "-wal")),
        )

    async def load_delivery(self) -> DeliveryRecord:
        """The delivery record as last saved."""
        return await self._reads.run(read_delivery)

    async def payload(self, event_id: str) -> bytes | None:
        """The stored bytes of one event, None when there is no such event."""
        rows = await self._reads.run(_fetch, SQL["PAYLOAD"], {"id": event_id})
        return bytes(rows[0][0]) if rows else None

    async def owners(self, limit: int) -> list[OwnerShare]:
        """The owners of the most bytes, the largest first. Reads every row."""
        rows = await self._reads.run(_fetch, SQL["OWNERS"], {"limit": limit})
        return [OwnerShare(*row) for row in rows]

    async def dead_groups(self, limit: int) -> list[DeadGroup]:
        """The newest dead rows, at most `limit`, by name and reason; the largest group first."""
        rows = await self._reads.run(_fetch, SQL["DEAD_GROUPS"], {"limit": limit})
        return [DeadGroup(*row) for row in rows]

    async def audit(self, limit: int, *, event: str | None = None) -> list[AuditRecord]:
        """The latest commands, newest first; only those that changed `event`, if given."""
        values = {"limit": limit, "event": event and id_start(event)}
        return records(await self._reads.run(_fetch, SQL["AUDIT"], values))


class SqlitePositions:
    """Positions among the rows: where a bounded look ends, where a moment is."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def reach(
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        """The last of the newest `window` rows in this state or of this owner; None when fewer."""
        before = PAST_ALL if before_seq is None else before_seq
        name = f"REACH_{'ALL' if state is None else state.upper()}"
        statement = SQL[name if owner is None else "REACH_OF_OWNER"]
        values = {"skipped": window - 1, "before": before, "owner": owner}
        rows = await self._reads.run(_fetch, statement, values)
        return Reach(*rows[0]) if rows else None

    async def seq_at(self, at_ms: int) -> int:
        """The number below which rows were accepted before `at_ms`."""
        return await self._reads.run(_seq_at, at_ms)


def found_row(connection: sqlite3.Connection, event_id: str) -> Row | None:
    """The row of an event, None when there is none."""
    statement = f"{SQL['ROWS']} FROM outbox_rows WHERE event_id = :id"
    rows = _fetch(connection, statement, {"id": event_id, "now": wall_now_ms()})
    return _row_of(rows[0]) if rows else None


def matching(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> list[Row]:
    """The rows that match, newest first."""
    text, values = _searched(wanted, now_ms)
    return [_row_of(row) for row in _fetch(connection, f"{SQL['ROWS']} {text}", values)]


def _searched(wanted: Filter, now_ms: int) -> tuple[str, dict[str, Any]]:
    """The FROM and what follows of a search, and its parameters."""
    tests = [test for name, test in _COMPARED.items() if getattr(wanted, name) is not None]
    tests += [test for name, test in _CONTAINED.items() if getattr(wanted, name)]
    if wanted.state is not None:
        tests.append(f"state = '{wanted.state}'")
    if wanted.never_sent:
        tests.append("state = 'pending' AND sends = 0")
    values = {
        **msgspec.structs.asdict(wanted),
        "now": now_ms,
        "prefix_end": f"{wanted.id_prefix}\U0010ffff",
        "payload_part": (wanted.payload_part or "").encode(),
        "ids": msgspec.json.encode(sorted(set(wanted.ids or ()))).decode(),
    }
    conditions = " AND ".join(tests) or "true"
    return f"FROM {_source(wanted)} WHERE {conditions} ORDER BY seq DESC LIMIT :limit", values


def _source(wanted: Filter) -> str:
    """Where the rows are looked for: by the narrowest index that the filter allows."""
    if wanted.ids is not None:
        return _BY_IDS
    if wanted.alias is not None:
        return _BY_ALIAS
    is_of_owner = wanted.owner is not None and wanted.after_seq is not None
    if wanted.state is not None and not is_of_owner:
        return _OF_STATE[wanted.state]
    return _BY_PREFIX if wanted.id_prefix is not None and wanted.owner is None else "outbox_rows"


def _row_of(row: tuple[Any, ...]) -> Row:
    """The row that ROWS gives."""
    *fields, history, payload_bytes, seq, meta_text, prefix = row
    fields[_STATE], fields[_ISOLATED] = State(fields[_STATE]), bool(fields[_ISOLATED])
    meta = decode_meta(meta_text)
    ulid = InngestIds(prefix).ulid(seq, fields[_ACCEPTED_AT_MS], meta)
    return Row(*[*fields, notes_of(history), payload_bytes, ulid, seq, meta])


def notes_of(history: str | None) -> tuple[Note, ...]:
    """The notes of a row; one note says so where they can't be read."""
    try:
        return _decode_history(history or "[]")
    except msgspec.DecodeError:
        return (Note(0, "The history can't be read."),)


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _stats(connection: sqlite3.Connection, now: int) -> tuple[Any, ...]:
    connection.execute("BEGIN")  # one snapshot, so that the figures agree with each other
    try:
        [counts] = _fetch(connection, SQL["COUNTS"], {})
        every = {"now": now, "due": PAST_ALL, "delays": False}
        [[oldest]] = _fetch(connection, SQL["OLDEST"], every)
        late = {"now": now, "due": now + SOON_MS, "delays": True}
        [[due]] = _fetch(connection, SQL["OLDEST"], late)
        delivery = read_delivery(connection)
    finally:
        connection.execute("ROLLBACK")
    return (*counts, oldest, due, delivery)


def _seq_at(connection: sqlite3.Connection, at_ms: int) -> int:
    """Halves the numbers until one is left."""
    [(low, high)] = _fetch(connection, SQL["ENDS"], {})
    while low < high:
        middle = (low + high) // 2
        rows = _fetch(connection, SQL["ACCEPTED_FROM"], {"seq": middle})
        if rows and rows[0][0] < at_ms:
            low = middle + 1
        else:
            high = middle
    return int(low)


def _age(at_ms: int | None, now_ms: int) -> float | None:
    return None if at_ms is None else max(0, now_ms - at_ms) / 1000


def _size(path: Path) -> int:
    """The size of a file, 0 without one."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
