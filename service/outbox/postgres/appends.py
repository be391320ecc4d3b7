"""The statements that store appended events, and find what was stored before.

A call with several events, or with a key that has a lifetime, has a call number: its events are
stored together or not at all. The statement itself decides by the keys' earlier uses. It runs again
when its snapshot did not show such a use. A unique index knows the ids and keys of one partition;
those of older partitions are in every snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from service.outbox.event import Event, by_environment, payload_bytes
from service.outbox.keys import IdempotencyKey
from service.outbox.postgres.rows import NOW_MS
from service.outbox.receipt import Receipt

_SYNCED = """set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
         ELSE current_setting('synchronous_commit') END, true)"""

# Stores the new rows, synced whatever the database's default is; returns their ids, their seqs and
# the transaction. A row with a delay goes into the lane of due_at. Seqs follow the order of the
# calls; the rows come in the order of their keys. `repeated` says that an earlier run may have
# stored the rows. An id is looked for by a subquery: the planner may read all ids for an EXISTS.
APPEND = f"""
WITH numbers AS MATERIALIZED (
    SELECT array_agg(nextval('outbox_seq_seq')) AS seqs FROM generate_series(1, %(rows)s::int)
), given AS (
    SELECT * FROM unnest(
        %(positions)b::int[], %(ids)b::text[], %(names)b::text[], %(owners)b::text[],
        %(users)b::text[], %(accepted)b::bigint[], %(traces)b::text[], %(keys)b::text[],
        %(digests)b::bytea[], %(wire_ids)b::text[], %(environments)b::text[], %(payloads)b::bytea[]
    ) AS g(position, event_id, name, owner, user_id, accepted_at_ms, trace, key, digest, wire_id,
           environment, payload)
), sketched AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)b::text[], %(calls)b::int[], %(due)b::bigint[], %(owners)b::text[],
        %(keys)b::text[], %(digests)b::bytea[], %(lifetimes)b::bigint[],
        %(express)b::boolean[]
    ) AS s(event_id, call, due_at_ms, owner, key, digest, lifetime_ms, express)
), used AS MATERIALIZED (
    SELECT g.event_id, call, o.seq, o.idempotency_digest <> g.digest AS differs,
           coalesce(o.accepted_at_ms < {NOW_MS} - lifetime_ms, false) AS expired
    FROM sketched AS g CROSS JOIN LATERAL (
        SELECT seq, accepted_at_ms, idempotency_digest FROM outbox
        WHERE outbox.owner = g.owner AND idempotency_key = g.key OFFSET 0) AS o
    WHERE g.key IS NOT NULL
), refused AS MATERIALIZED (
    SELECT call FROM used WHERE call IS NOT NULL AND differs AND NOT expired
), known AS MATERIALIZED (
    SELECT event_id FROM used WHERE NOT expired
    UNION ALL
    SELECT event_id FROM sketched WHERE call IN (TABLE refused)
    UNION ALL
    SELECT event_id FROM sketched AS s
    WHERE (%(repeated)s::boolean OR (SELECT max(opened_at) FROM outbox_partitions)
                                    > statement_timestamp() - interval '10 minutes')
      AND (SELECT true FROM outbox WHERE outbox.event_id = s.event_id LIMIT 1)
), freed AS (
    UPDATE outbox SET idempotency_key = NULL, idempotency_digest = NULL
    WHERE seq = ANY(ARRAY(SELECT seq FROM used WHERE expired AND call NOT IN (TABLE refused)))
    RETURNING seq
), put AS (
    INSERT INTO outbox (seq, event_id, name, owner, user_id, accepted_at_ms, trace,
                        idempotency_key, idempotency_digest, wire_id, environment, payload)
    SELECT seqs[position], event_id, name, owner, user_id, accepted_at_ms, trace, key, digest,
           wire_id, environment, payload
    FROM numbers, given
    WHERE event_id NOT IN (TABLE known) AND (SELECT count(*) FROM freed) >= 0
    ON CONFLICT DO NOTHING
    RETURNING seq, event_id, owner, octet_length(payload) AS payload_bytes
), held AS (
    SELECT event_id, to_timestamp(due_at_ms / 1000.0) AS due_at FROM sketched, outbox_mark
    WHERE due_at_ms > 0 AND to_timestamp(due_at_ms / 1000.0) > greatest(clock_timestamp(), due_from)
), ready AS (
    INSERT INTO outbox_ready (seq, payload_bytes, due_at, held, express_seq)
    SELECT seq, payload_bytes, due_at, due_at IS NOT NULL, CASE WHEN express THEN seq END
    FROM put JOIN sketched USING (event_id) LEFT JOIN held USING (event_id)
), changed AS (
    INSERT INTO outbox_changes (owners, pending, stored, stored_bytes)
    SELECT array_agg(owner), array_agg(rows), array_agg(rows), array_agg(bytes)
    FROM (SELECT owner, count(*) AS rows, sum(payload_bytes) AS bytes
          FROM put GROUP BY owner) AS by_owner
    HAVING count(*) > 0
)
SELECT event_id, seq, pg_current_xact_id()::text::bigint FROM put, {_SYNCED} AS synced
WHERE outbox_check_whole(
    (SELECT count(*) FROM sketched WHERE call IS NOT NULL AND event_id NOT IN (TABLE known)),
    (SELECT count(*) FROM put
     WHERE event_id IN (SELECT event_id FROM sketched WHERE call IS NOT NULL)))
"""

# What is stored under these ids, or under these owners' keys, and the database's time. The write
# makes the commit wait for all earlier commits, even those that may not have reached a standby.
FIND_STORED = f"""
WITH synced AS (
    INSERT INTO outbox_changes DEFAULT VALUES RETURNING {_SYNCED}
), found AS (
    SELECT seq FROM outbox WHERE event_id = ANY(%(ids)s::text[])
    UNION
    SELECT o.seq FROM unnest(%(owners)s::text[], %(keys)s::text[]) AS g(owner, key)
    CROSS JOIN LATERAL (SELECT seq FROM outbox WHERE outbox.owner = g.owner
                        AND idempotency_key = g.key OFFSET 0) AS o
)
SELECT o.event_id, o.owner, o.idempotency_key, o.idempotency_digest, o.seq, o.accepted_at_ms,
       o.inngest_id, {NOW_MS}
FROM synced, found CROSS JOIN LATERAL (
    SELECT * FROM outbox WHERE outbox.seq = found.seq OFFSET 0) AS o
"""


class Appended(msgspec.Struct, frozen=True, eq=False):
    """The receipts of a call, and the transaction that stored its new events, if it is known."""

    receipts: Sequence[Receipt]
    transaction: int | None


class Append(msgspec.Struct, frozen=True, eq=False):
    """The events of one call, which wait to be stored; `done` gets the result.

    `express` is whether their owner has few rows in a full queue.
    """

    events: Sequence[Event]
    keys: Sequence[IdempotencyKey | None]
    express: bool
    done: asyncio.Future[Appended]
    deadline: float

    @property
    def payload_bytes(self) -> int:
        """The size of all payloads."""
        return payload_bytes(self.events)

    @property
    def names(self) -> set[tuple[str, str]]:
        """The (owner, key) pairs of the events that have a key."""
        pairs = zip(self.events, self.keys, strict=True)
        return {(event.owner, key.key) for event, key in pairs if key}

    @property
    def has_number(self) -> bool:
        """Whether its events carry a call number."""
        first = self.keys[0]
        return len(self.events) > 1 or (first is not None and first.lifetime_seconds is not None)


class _Row(msgspec.Struct, frozen=True, eq=False, gc=False):
    position: int
    call: int | None
    event: Event
    key: IdempotencyKey | None
    express: bool


def columns(batch: Sequence[Append]) -> dict[str, object]:
    """The parameters of APPEND."""
    rows = _rows(batch)
    # Every process uses this order, so that two flushes never wait for each other's keys.
    rows.sort(key=lambda row: (row.event.owner, row.key.key) if row.key else ("", ""))
    return {
        "rows": len(rows),
        "repeated": False,
        "positions": [row.position for row in rows],
        "calls": [row.call for row in rows],
        "ids": [row.event.id for row in rows],
        "names": [row.event.name for row in rows],
        "owners": [row.event.owner for row in rows],
        "users": [row.event.user_id for row in rows],
        "accepted": [row.event.accepted_at_ms for row in rows],
        "due": [row.event.meta.due_at_ms for row in rows],
        "traces": [row.event.meta.trace for row in rows],
        "keys": [row.key and row.key.key for row in rows],
        "digests": [row.key and row.key.digest for row in rows],
        "lifetimes": [_lifetime_ms(row.key) for row in rows],
        "wire_ids": [row.event.meta.wire_id for row in rows],
        "environments": [row.event.meta.environment for row in rows],
        "express": [row.express for row in rows],
        "payloads": [row.event.payload for row in rows],
    }


def _rows(batch: Sequence[Append]) -> list[_Row]:
    """The events to store. A repeat inside one call is not one."""
    rows: list[_Row] = []
    for number in by_environment([item.events for item in batch]):
        item = batch[number]
        call = number if item.has_number else None
        names: set[tuple[str, str]] = set()
        for event, key in zip(item.events, item.keys, strict=True):
            if key:
                name = (event.owner, key.key)
                if name in names:
                    continue
                names.add(name)
            rows.append(_Row(len(rows) + 1, call, event, key, item.express))
    return rows


def _lifetime_ms(key: IdempotencyKey | None) -> int | None:
    return None if key is None or key.lifetime_seconds is None else int(key.lifetime_seconds * 1000)
