"""Reads rows for people through the pool."""

from __future__ import annotations

from typing import Any

from service.outbox.inngest_id import InngestIds
from service.outbox.model import Filter, Row, State
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import (
    ROWS_BY_IDS,
    count_statement,
    filter_values,
    meta_of,
    rows_statement,
)

_LAST_NOTES = 20
_STATE = 4
_ACCEPTED_AT_MS = 8


async def find_rows(pool: PostgresPool, wanted: Filter) -> list[Row]:
    """The matching rows, newest first. Raises OutboxUnavailableError."""
    given = filter_values(wanted)
    if wanted == Filter(ids=wanted.ids, limit=wanted.limit) and wanted.ids is not None:
        found = await pool.ask(ROWS_BY_IDS, given, often=True)
    else:
        found = await pool.ask(rows_statement(wanted), given)
    return [_row(row) for row in found]


async def count_rows(pool: PostgresPool, wanted: Filter) -> int:
    """How many rows match, at most the limit. Raises OutboxUnavailableError."""
    rows = await pool.ask(count_statement(wanted), filter_values(wanted))
    return int(rows[0][0])


async def find_row(pool: PostgresPool, event_id: str) -> Row | None:
    """The row of one event, None when there is none. Raises OutboxUnavailableError."""
    rows = await find_rows(pool, Filter(ids=(event_id,)))
    return rows[0] if rows else None


def _row(row: tuple[Any, ...]) -> Row:
    *fields, noted_at, notes, payload_bytes, seq, wire_id, environment, inngest_id, prefix = row
    history = [{"at": at, "note": note} for at, note in zip(noted_at, notes, strict=True)]
    fields[_STATE] = State(fields[_STATE])
    meta = meta_of(inngest_id, wire_id, environment)
    ulid = InngestIds(prefix).ulid(seq, fields[_ACCEPTED_AT_MS], meta)
    last = (payload_bytes, ulid, seq, meta)
    return Row(*[*fields, tuple(history[-_LAST_NOTES:]), *last])
