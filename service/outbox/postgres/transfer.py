"""A PostgreSQL outbox as a move sees it.

A row under a claim is given as the pending row that it becomes when its lease ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from service.errors import OutboxUnavailableError
from service.outbox.event import Meta
from service.outbox.fault_postgresql import fault_at
from service.outbox.inngest_id import InngestIds
from service.outbox.move.transfer import TransferRow
from service.outbox.postgres.recount import RECOUNT
from service.outbox.postgres.seal import PostgresSeal
from service.outbox.postgres.transfer_metadata import PostgresTransferMetadata

# The events that `chosen` selects. A claim's rows are unnested once for all of them.
_EVENTS = """
WITH chosen AS MATERIALIZED (
    {chosen}
), claimed AS MATERIALIZED (
    SELECT u.seq, u.attempts, u.sends + 1 AS sends, u.isolated,
           coalesce(u.first_sent_at_ms, c.claimed_at_ms) AS first_sent_at_ms
    FROM outbox_claims c, unnest(c.seqs, c.attempts, c.sends, c.isolated, c.first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
    WHERE c.lease_until >= (SELECT lease_from FROM outbox_mark)
), placed AS MATERIALIZED (
    SELECT seq, 'pending' AS state, attempts, sends, isolated, first_sent_at_ms,
           NULL::bigint AS at_ms, NULL AS reason, NULL AS detail, 0::bigint AS due_at_ms
    FROM claimed WHERE seq IN (SELECT seq FROM chosen)
    UNION ALL
    SELECT p.* FROM chosen AS o CROSS JOIN LATERAL (
        SELECT seq, 'pending', attempts, sends, isolated, first_sent_at_ms, NULL::bigint, NULL,
               NULL, CASE WHEN held THEN extract(epoch FROM due_at) * 1000 ELSE 0 END::bigint
        FROM outbox_ready r WHERE r.seq = o.seq
        UNION ALL
        SELECT seq, 'sent', attempts, sends, isolated, first_sent_at_ms, sent_at_ms, NULL,
               NULL, 0
        FROM outbox_sent s WHERE s.seq = o.seq
        UNION ALL
        SELECT seq, CASE WHEN dead THEN 'dead' ELSE 'delivered' END, attempts, sends, isolated,
               first_sent_at_ms, settled_at_ms, reason, detail, 0
        FROM outbox_done d WHERE d.seq = o.seq
    ) AS p
)
SELECT o.seq, o.event_id, o.name, o.owner, o.user_id, o.accepted_at_ms,
       p.state, p.attempts, p.sends, p.isolated, p.first_sent_at_ms, p.at_ms, p.reason, p.detail,
       ARRAY(SELECT at_ms FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
       ARRAY(SELECT note FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
       o.trace, o.idempotency_key, encode(o.idempotency_digest, 'hex'),
       encode(sha256(o.payload), 'hex'), o.wire_id, o.environment, p.due_at_ms,
       o.inngest_id, (SELECT inngest_id_prefix FROM outbox_meta)
FROM chosen AS o JOIN placed AS p USING (seq) ORDER BY o.seq
"""
EVENTS = _EVENTS.format(
    chosen="SELECT * FROM outbox WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s"
)
PAYLOADS = "SELECT event_id, payload FROM outbox WHERE event_id = ANY(%(ids)s::text[])"

# A page of events in the order given, and their places: one statement, because each is planned
# again for all partitions. A given array has one element an event; those of the notes run in step
# with each other.
WRITE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        %(id)s::text[], %(name)s::text[], %(owner)s::text[], %(user_id)s::text[],
        %(accepted_at_ms)s::bigint[], %(trace)s::text[], %(key)s::text[], %(key_digest)s::text[],
        %(wire_id)s::text[], %(environment)s::text[], %(inngest_id)s::text[],
        %(payload)b::bytea[], %(state)s::text[], %(settled_at_ms)s::bigint[],
        %(first_sent_at_ms)s::bigint[], %(attempts)s::integer[], %(sends)s::integer[],
        %(isolated)s::boolean[], %(reason)s::text[], %(detail)s::text[], %(due_at_ms)s::bigint[]
    ) WITH ORDINALITY AS u (id, name, owner, user_id, accepted_at_ms, trace, key, key_digest,
                            wire_id, environment, inngest_id, payload, state, settled_at_ms,
                            first_sent_at_ms, attempts, sends, isolated, reason, detail,
                            due_at_ms, place)
), put AS (
    INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                        idempotency_digest, wire_id, environment, inngest_id, payload)
    SELECT id, name, owner, user_id, accepted_at_ms, trace, key, decode(key_digest, 'hex'), wire_id,
           environment, inngest_id, payload
    FROM given ORDER BY place
    RETURNING seq, event_id
), placed AS MATERIALIZED (
    SELECT seq, id, octet_length(payload) AS payload_bytes, state, settled_at_ms, first_sent_at_ms,
           attempts, sends, isolated, reason, detail, to_timestamp(due_at_ms / 1000.0) AS due_at
    FROM given JOIN put ON event_id = id
), ready AS (
    INSERT INTO outbox_ready (seq, first_sent_at_ms, attempts, sends, payload_bytes, isolated,
                              due_at, held)
    SELECT seq, first_sent_at_ms, attempts, sends, payload_bytes, isolated,
           greatest(clock_timestamp(), due_from, due_at),
           due_at > greatest(clock_timestamp(), due_from)
    FROM placed, outbox_mark WHERE state = 'pending' ORDER BY seq
), sent AS (
    INSERT INTO outbox_sent (seq, sent_at_ms, first_sent_at_ms, attempts, sends, isolated)
    SELECT seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated
    FROM placed WHERE state = 'sent'
), done AS (
    INSERT INTO outbox_done (seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, dead,
                             reason, detail)
    SELECT seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, state = 'dead', reason,
           detail
    FROM placed WHERE state IN ('delivered', 'dead')
)
INSERT INTO outbox_notes (seq, at_ms, note)
SELECT seq, at_ms, note
FROM unnest(%(noted)s::text[], %(noted_at_ms)s::bigint[], %(note)s::text[]) AS n (id, at_ms, note)
JOIN placed USING (id)
"""
CLEAR = tuple(
    f"DELETE FROM {table}"
    for table in ("outbox_ready", "outbox_sent", "outbox_done", "outbox_notes", "outbox")
)

SET_UP = "SELECT set_config('outbox.moving', 'yes', false), set_config('jit', 'off', false)"

_ACCEPTED_AT_MS = 5
_LATER_COLUMNS = 9
_PART_BYTES = 2**24


class PostgresTransferEvents:
    """The events of the outbox behind `connection`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def page(self, after_seq: int, limit: int) -> list[TransferRow]:
        """Events in their order, without their bytes."""
        values = {"after": after_seq, "limit": limit}
        return [_transfer_row(row) for row in self._connection.execute(EVENTS, values)]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of these events."""
        return dict(self._connection.execute(PAYLOADS, {"ids": list(ids)}).fetchall())

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """Add these events, which are not here, in their order; atomically."""
        with self._connection.transaction():
            for part in _parts(events, payloads):
                self._connection.execute(WRITE, _columns(part, payloads))

    def clear(self) -> None:
        """Remove all events."""
        with self._connection.transaction():
            for statement in CLEAR:
                self._connection.execute(statement)


class PostgresTransfer:
    """The parts of one outbox; made by `open_postgres_transfer`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.events = PostgresTransferEvents(connection)
        self.metadata = PostgresTransferMetadata(connection)
        self._seal = PostgresSeal(connection)

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """Seal the outbox inside, by the database; False when a service listens to it.

        It stays sealed while a move into it is not finished, and after a move out of it.
        """
        if self._seal.is_served():
            yield False
            return
        self._seal.put_on()
        try:
            yield True
        finally:
            self._connection.execute(RECOUNT)
            moves = self.metadata.moves()
            if not moves or moves[-1].startswith("finished"):
                self._seal.take_off()


@contextlib.contextmanager
def open_postgres_transfer(url: str) -> Iterator[PostgresTransfer]:
    """The outbox at `url`, which is migrated. Raises OutboxUnavailableError."""
    try:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            connection.execute(SET_UP)
            yield PostgresTransfer(connection)
    except psycopg.Error as error:
        raise OutboxUnavailableError(fault_at(url, error)) from error


def _transfer_row(row: tuple[Any, ...]) -> TransferRow:
    *fields, noted_at, notes = row[:-_LATER_COLUMNS]
    *origin, wire_id, environment, due_at_ms, inngest_id, prefix = row[-_LATER_COLUMNS:]
    seq, accepted_at_ms = fields[0], fields[_ACCEPTED_AT_MS]
    ulid = InngestIds(prefix).ulid(seq, accepted_at_ms, Meta(moved_id=inngest_id))
    history = tuple(zip(noted_at, notes, strict=True))
    return TransferRow(*[*fields, history, *origin, ulid, wire_id, environment, due_at_ms])


def _parts(
    events: Sequence[TransferRow], payloads: Mapping[str, bytes]
) -> Iterator[Sequence[TransferRow]]:
    """The events in their order, of at most 16 MiB each: a value has at most 1 GiB."""
    begin = size = 0
    for end, event in enumerate(events):
        size += len(payloads[event.id])
        if size > _PART_BYTES and end > begin:
            yield events[begin:end]
            begin, size = end, len(payloads[event.id])
    yield events[begin:]


def _columns(events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> dict[str, object]:
    """The parameters of WRITE."""
    notes = [(event.id, at_ms, note) for event in events for at_ms, note in event.history]
    fields = TransferRow.__struct_fields__
    return {
        **{name: [getattr(event, name) for event in events] for name in fields},
        "payload": [payloads[event.id] for event in events],
        "noted": [event_id for event_id, _, _ in notes],
        "noted_at_ms": [at_ms for _, at_ms, _ in notes],
        "note": [note for _, _, note in notes],
    }
