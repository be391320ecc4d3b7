"""Looking into an SQLite outbox, live or a copy, without ever blocking its writer.

Needs a read-only connection and nothing else, so that the `outbox` script can use it beside a
running service. Every statement is one short read transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from service.outbox.clock import wall_now_ms
from service.outbox.inngest_id import InngestIds
from service.outbox.model import DeliveryRecord, Filter, OwnerShare, Row, State, Stats
from service.outbox.sqlite.reader import Reads
from service.outbox.sqlite.wal import WriteAheadLog

_COLUMNS = """
SELECT seq, event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms,
       inngest_id, first_sent_at_ms, settled_at_ms, due_at_ms, lease_until_ms, reason, detail,
       coalesce(history, '[]'), payload_bytes, (SELECT inngest_id_prefix FROM outbox_meta)
"""

_PAST_ALL = 2**63 - 1

# Where the rows of a state are: reading a state reads no row of another.
_PLACES = {
    State.PENDING: "(SELECT seq FROM outbox_ready)",
    State.DELIVERING: "(SELECT seq FROM outbox_claims)",
    State.SENT: "(SELECT seq FROM outbox_sent)",
    State.DELIVERED: "(SELECT seq FROM outbox_done WHERE dead = 0)",
    State.DEAD: "(SELECT seq FROM outbox_done WHERE dead = 1)",
}

# Each condition but the first is switched off by a NULL parameter.
_MATCHING = """
WHERE {in_state}
  AND (:owner IS NULL OR owner = :owner)
  AND (:user_id IS NULL OR user_id = :user_id)
  AND (:name IS NULL OR name = :name)
  AND (:reason IS NULL OR reason = :reason)
  AND (:accepted_before IS NULL OR accepted_at_ms <= :accepted_before)
  AND (:since IS NULL OR accepted_at_ms >= :since)
  AND seq < :before
  AND (NOT :never_sent OR (state = 'pending' AND sends = 0 AND first_sent_at_ms IS NULL))
ORDER BY seq DESC LIMIT :limit
"""

FIND = f"{_COLUMNS} FROM outbox_rows WHERE event_id = :id"


def _matching(state: State | None, *, by_ids: bool) -> str:
    """The statement that reads no row but those of the ids, or else of the state."""
    source, in_state = "outbox_rows", "true"
    if by_ids:
        source = "json_each(:ids) CROSS JOIN outbox_rows ON event_id = value"
        in_state = f"state = '{state}'" if state else "true"
    elif state:
        source = f"{_PLACES[state]} CROSS JOIN outbox_rows USING (seq)"
    return f"{_COLUMNS} FROM {source} {_MATCHING.format(in_state=in_state)}"


MATCHING = {
    (state, by_ids): _matching(state, by_ids=by_ids)
    for state in (None, *State)
    for by_ids in (False, True)
}

COUNTS = """
SELECT (SELECT count(*) FROM outbox_ready), (SELECT count(*) FROM outbox_claims),
       (SELECT count(*) FROM outbox_sent), (SELECT count(*) FROM outbox_done),
       (SELECT count(*) FROM outbox_done WHERE dead = 1)
"""

# Rows are numbered in the order of their acceptance, but a clock that was ahead hides nothing: of
# the first rows, those that the clock knows to be past count.
_OLDEST = """
SELECT coalesce(min(iif(accepted_at_ms <= :now, accepted_at_ms, NULL)), min(accepted_at_ms)) FROM (
    SELECT * FROM (SELECT seq FROM outbox_ready WHERE {due} ORDER BY seq LIMIT 100)
    UNION ALL
    SELECT * FROM (SELECT seq FROM outbox_ready WHERE {due} ORDER BY seq DESC LIMIT 100)
    UNION ALL SELECT * FROM (SELECT seq FROM outbox_claims ORDER BY seq LIMIT 100))
CROSS JOIN outbox USING (seq)
"""
OLDEST_PENDING = _OLDEST.format(due="true")
OLDEST_DUE = _OLDEST.format(due="due_at_ms <= :now")
DELIVERY = """
SELECT state, reason, batch_window, failures, reopens_at_ms, since_ms, rate, paused_by, revision,
       destination, confirmation
FROM outbox_delivery
"""
PAYLOAD = "SELECT payload FROM outbox WHERE event_id = :id"
OWNERS = """
SELECT owner, count(*), sum(length(payload)) FROM outbox
GROUP BY owner ORDER BY 3 DESC, owner LIMIT :limit
"""
AUDIT = "SELECT at_ms, actor, action, detail FROM outbox_audit ORDER BY id DESC LIMIT :limit"


class SqliteInspector:
    """The Inspector of the outbox at `path`, over a connection that reads."""

    def __init__(self, reads: Reads, path: Path) -> None:
        self._reads = reads
        self._path = path
        self._log = WriteAheadLog(path)

    async def rows(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first."""
        now = wall_now_ms()
        found = await self._reads.run(matching, wanted, now)
        return [row_of(row, now) for row in found]

    async def stats(self) -> Stats:
        """The figures."""
        now = wall_now_ms()
        found = await self._reads.run(_stats, now)
        ready, claimed, sent, done, dead, oldest, due, delivery = found
        return Stats(
            pending=ready,
            delivering=claimed,
            sent=sent,
            delivered=done - dead,
            dead=dead,
            oldest_pending_seconds=_age(oldest, now),
            oldest_due_seconds=_age(due, now),
            delivery=delivery_record(delivery, now),
            database_bytes=_size(self._path),
            wal_bytes=self._log.size,
        )

    async def load_delivery(self) -> DeliveryRecord:
        """The delivery record as last saved."""
        [delivery] = await self._reads.run(_fetch, DELIVERY, {})
        return delivery_record(delivery, wall_now_ms())

    async def payload(self, event_id: str) -> bytes | None:
        """The stored bytes of one event, None when there is no such event."""
        rows = await self._reads.run(_fetch, PAYLOAD, {"id": event_id})
        return bytes(rows[0][0]) if rows else None

    async def owners(self, limit: int) -> list[OwnerShare]:
        """Who holds the most bytes, the largest first. Reads every row."""
        rows = await self._reads.run(_fetch, OWNERS, {"limit": limit})
        return [OwnerShare(*row) for row in rows]

    async def audit(self, limit: int) -> list[dict[str, object]]:
        """The latest operator actions, newest first: `at` (ms), `actor`, `action`, `detail`."""
        rows = await self._reads.run(_fetch, AUDIT, {"limit": limit})
        return [dict(zip(("at", "actor", "action", "detail"), row, strict=True)) for row in rows]


def found_row(connection: sqlite3.Connection, event_id: str) -> Row | None:
    """The row of an event, None when there is none."""
    rows = _fetch(connection, FIND, {"id": event_id})
    return row_of(rows[0], wall_now_ms()) if rows else None


def matching(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> list[tuple[Any, ...]]:
    """The rows that match, newest first: the columns of `_COLUMNS`."""
    older = wanted.older_than_seconds
    values = {
        "ids": None
        if wanted.ids is None
        else msgspec.json.encode(sorted(set(wanted.ids))).decode(),
        "owner": wanted.owner,
        "user_id": wanted.user_id,
        "name": wanted.name,
        "reason": wanted.reason,
        "accepted_before": None if older is None else now_ms - int(older * 1000),
        "since": wanted.since_ms,
        "before": _PAST_ALL if wanted.before_seq is None else wanted.before_seq,
        "never_sent": wanted.never_sent,
        "limit": wanted.limit,
    }
    return _fetch(connection, MATCHING[wanted.state, wanted.ids is not None], values)


def delivery_record(row: tuple[Any, ...], now_ms: int) -> DeliveryRecord:
    """The delivery record as DELIVERY gives it.

    A clock that was set back since it was saved tells nothing of the wait: then it is over.
    """
    state, reason, window, failures, reopens_at, since, rate, paused_by, revision = row[:9]
    destination, confirmation = row[9:]
    if now_ms < since:
        reopens_at = 0
    return DeliveryRecord(
        state=state,
        reason=reason,
        window=window,
        failures=failures,
        reopens_in_seconds=max(0, reopens_at - now_ms) / 1000,
        since_ms=since,
        rate=rate,
        paused_by=paused_by,
        revision=revision,
        destination=destination,
        confirmation=confirmation,
    )


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _stats(connection: sqlite3.Connection, now: int) -> tuple[Any, ...]:
    connection.execute("BEGIN")  # one snapshot, so that the figures agree with each other
    try:
        [counts] = connection.execute(COUNTS).fetchall()
        oldest = connection.execute(OLDEST_PENDING, {"now": now}).fetchall()
        due = connection.execute(OLDEST_DUE, {"now": now}).fetchall()
        [delivery] = connection.execute(DELIVERY).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return (*counts, oldest, due, delivery)


def row_of(row: tuple[Any, ...], now: int) -> Row:
    """The row that `_COLUMNS` gives, at this moment."""
    (seq, event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms) = row[
        :10
    ]
    inngest_id, sent_at, settled_at_ms, due_at_ms, lease_until_ms, reason, detail = row[10:17]
    history, size, prefix = row[17:]
    pending = state == State.PENDING
    return Row(
        id=event_id,
        name=name,
        owner=owner,
        user_id=user_id,
        state=State(state),
        attempts=attempts,
        sends=sends,
        isolated=bool(isolated),
        accepted_at_ms=accepted_at_ms,
        first_sent_at_ms=sent_at,
        settled_at_ms=settled_at_ms,
        due_in_seconds=max(0, due_at_ms - now) / 1000 if pending else None,
        lease_in_seconds=None if lease_until_ms is None else max(0, lease_until_ms - now) / 1000,
        reason=reason,
        detail=detail,
        history=_notes(history),
        payload_bytes=size,
        seq=seq,
        inngest_id=InngestIds(prefix).ulid(seq, accepted_at_ms, inngest_id),
    )


def _notes(history: str) -> tuple[dict[str, object], ...]:
    try:
        return tuple(msgspec.json.decode(history, type=list[dict[str, object]]))
    except msgspec.DecodeError:
        return ({"at": 0, "note": "The history can't be read."},)


def _age(accepted: list[tuple[int | None]], now_ms: int) -> float | None:
    [(at_ms,)] = accepted
    return None if at_ms is None else max(0, now_ms - at_ms) / 1000


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
