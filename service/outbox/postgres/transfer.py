"""A PostgreSQL outbox as a move sees it; reads beside running services.

A row under a claim is given as the pending row that it becomes when its lease ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from service.errors import OutboxUnavailableError
from service.outbox.fault_postgresql import fault_at
from service.outbox.inngest_id import InngestIds
from service.outbox.postgres.recount import RECOUNT
from service.outbox.postgres.seal import PostgresSeal
from service.outbox.postgres.transfer_metadata import PostgresTransferMetadata
from service.outbox.transfer import TransferRow

_EVENTS = """
SELECT r.seq, r.event_id, r.name, r.owner, r.user_id, r.accepted_at_ms,
       CASE r.state WHEN 'delivering' THEN 'pending' ELSE r.state END, r.attempts,
       r.sends + CASE r.state WHEN 'delivering' THEN 1 ELSE 0 END, r.isolated, r.first_sent_at_ms,
       coalesce(r.settled_at_ms, r.sent_at_ms), r.reason, r.detail,
       ARRAY(SELECT at_ms FROM outbox_notes n WHERE n.seq = r.seq ORDER BY at_ms, note),
       ARRAY(SELECT note FROM outbox_notes n WHERE n.seq = r.seq ORDER BY at_ms, note),
       r.trace, r.idempotency_key, encode(r.idempotency_digest, 'hex'),
       encode(sha256(o.payload), 'hex'), r.wire_id, r.environment, r.inngest_id,
       (SELECT inngest_id_prefix FROM outbox_meta)
FROM outbox AS o JOIN outbox_rows AS r USING (seq)
"""
EVENTS = f"{_EVENTS} WHERE o.seq > %(after)s ORDER BY o.seq LIMIT %(limit)s"
NAMED = f"{_EVENTS} WHERE o.event_id = ANY(%(ids)s::text[])"
PAYLOADS = "SELECT event_id, payload FROM outbox WHERE event_id = ANY(%(ids)s::text[])"

WRITE = """
INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                    idempotency_digest, wire_id, environment, inngest_id, payload)
VALUES (%(id)s, %(name)s, %(owner)s, %(user_id)s, %(accepted_at_ms)s, %(trace)s, %(key)s,
        decode(%(key_digest)s, 'hex'), %(wire_id)s, %(environment)s, %(inngest_id)s, %(payload)s)
ON CONFLICT (event_id) DO NOTHING
"""
PUT_READY = """
INSERT INTO outbox_ready (seq, first_sent_at_ms, attempts, sends, payload_bytes, isolated,
                          due_at)
SELECT seq, %(first_sent_at_ms)s::bigint, %(attempts)s::integer, %(sends)s::integer,
       octet_length(payload), %(isolated)s::boolean, clock_timestamp()
FROM outbox WHERE event_id = %(id)s
"""
PUT_DONE = """
INSERT INTO outbox_done (seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, dead,
                         reason, detail)
SELECT seq, %(settled_at_ms)s::bigint, %(first_sent_at_ms)s::bigint, %(attempts)s::integer,
       %(sends)s::integer, %(isolated)s::boolean, %(dead)s::boolean, %(reason)s::text,
       %(detail)s::text
FROM outbox WHERE event_id = %(id)s
"""
PUT_SENT = """
INSERT INTO outbox_sent (seq, sent_at_ms, first_sent_at_ms, attempts, sends, isolated)
SELECT seq, %(settled_at_ms)s::bigint, %(first_sent_at_ms)s::bigint, %(attempts)s::integer,
       %(sends)s::integer, %(isolated)s::boolean
FROM outbox WHERE event_id = %(id)s
"""
PUT_NOTE = """
INSERT INTO outbox_notes (seq, at_ms, note)
SELECT seq, %(at_ms)s::bigint, %(note)s::text FROM outbox WHERE event_id = %(id)s
"""
LEAVE_PLACES = """
WITH named AS (SELECT seq FROM outbox WHERE event_id = ANY(%(ids)s::text[])),
ready AS (DELETE FROM outbox_ready WHERE seq = ANY(ARRAY(SELECT seq FROM named))),
sent AS (DELETE FROM outbox_sent WHERE seq = ANY(ARRAY(SELECT seq FROM named))),
done AS (DELETE FROM outbox_done WHERE seq = ANY(ARRAY(SELECT seq FROM named)))
DELETE FROM outbox_notes WHERE seq = ANY(ARRAY(SELECT seq FROM named))
"""
REMOVE = "DELETE FROM outbox WHERE event_id = ANY(%(ids)s::text[])"

SET_UP = "SELECT set_config('outbox.moving', 'yes', false), set_config('jit', 'off', false)"

_ACCEPTED_AT_MS = 5
_LATER_COLUMNS = 8


class PostgresTransferEvents:
    """The events of the outbox behind `connection`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def page(self, after_seq: int, limit: int) -> list[TransferRow]:
        """Events in their order, without their bytes."""
        values = {"after": after_seq, "limit": limit}
        return [_transfer_row(row) for row in self._connection.execute(EVENTS, values)]

    def by_ids(self, ids: Sequence[str]) -> list[TransferRow]:
        """The events with these ids, those that are there."""
        return [_transfer_row(row) for row in self._connection.execute(NAMED, {"ids": list(ids)})]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of these events."""
        return dict(self._connection.execute(PAYLOADS, {"ids": list(ids)}).fetchall())

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """Make these events what they are here, atomically; new ones in their order."""
        values = [_values(event, payloads[event.id]) for event in events]
        waiting = [one for one in values if one["state"] == "pending"]
        sent = [one for one in values if one["state"] == "sent"]
        done = [one for one in values if one["state"] in ("delivered", "dead")]
        notes = [
            {"id": event.id, "at_ms": at_ms, "note": note}
            for event in events
            for at_ms, note in event.history
        ]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(LEAVE_PLACES, {"ids": [event.id for event in events]})
            for statement, rows in (
                (WRITE, values),
                (PUT_READY, waiting),
                (PUT_SENT, sent),
                (PUT_DONE, done),
                (PUT_NOTE, notes),
            ):
                cursor.executemany(statement, rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove these events, atomically."""
        with self._connection.transaction():
            self._connection.execute(LEAVE_PLACES, {"ids": list(ids)})
            self._connection.execute(REMOVE, {"ids": list(ids)})


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
    *origin, wire_id, environment, inngest_id, prefix = row[-_LATER_COLUMNS:]
    seq, accepted_at_ms = fields[0], fields[_ACCEPTED_AT_MS]
    ulid = InngestIds(prefix).ulid(seq, accepted_at_ms, inngest_id)
    history = tuple(zip(noted_at, notes, strict=True))
    return TransferRow(*[*fields, history, *origin, ulid, wire_id, environment])


def _values(event: TransferRow, payload: bytes) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(event),
        "dead": event.state == "dead",
        "payload": payload,
    }
