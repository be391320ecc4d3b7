"""A PostgreSQL outbox as a move sees it (see `move.TransferStore`).

Reads beside running services. It counts as served while a service listens, and is sealed by the
database otherwise, so that a service that was not seen can't write. A row under a claim is given as
the pending row that it becomes when its lease ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from service.errors import OutboxUnavailableError
from service.outbox.audit import AuditRow
from service.outbox.fault_postgresql import fault_at
from service.outbox.inngest_id import InngestIds
from service.outbox.postgres.notify import SERVED_LOCK_CLASS
from service.outbox.postgres.recount import RECOUNT
from service.outbox.transfer import Scope, TransferRow

_EVENTS = """
SELECT r.seq, r.event_id, r.name, r.owner, r.user_id, r.accepted_at_ms,
       CASE r.state WHEN 'delivering' THEN 'pending' ELSE r.state END, r.attempts,
       r.sends + CASE r.state WHEN 'delivering' THEN 1 ELSE 0 END, r.isolated, r.first_sent_at_ms,
       coalesce(r.settled_at_ms, r.sent_at_ms), r.reason, r.detail,
       ARRAY(SELECT at_ms FROM outbox_notes n WHERE n.seq = r.seq ORDER BY at_ms, note),
       ARRAY(SELECT note FROM outbox_notes n WHERE n.seq = r.seq ORDER BY at_ms, note),
       r.trace, r.idempotency_key, encode(r.idempotency_digest, 'hex'),
       encode(sha256(o.payload), 'hex'), r.inngest_id,
       (SELECT inngest_id_prefix FROM outbox_meta)
FROM outbox AS o JOIN outbox_rows AS r USING (seq)
"""
EVENTS = f"{_EVENTS} WHERE o.seq > %(after)s ORDER BY o.seq LIMIT %(limit)s"
NAMED = f"{_EVENTS} WHERE o.event_id = ANY(%(ids)s::text[])"
PAYLOADS = "SELECT event_id, payload FROM outbox WHERE event_id = ANY(%(ids)s::text[])"

WRITE = """
INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                    idempotency_digest, inngest_id, payload)
VALUES (%(id)s, %(name)s, %(owner)s, %(user_id)s, %(accepted_at_ms)s, %(trace)s, %(key)s,
        decode(%(key_digest)s, 'hex'), %(inngest_id)s, %(payload)s)
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

SCOPES = "SELECT scope, scope_id, settings FROM outbox_settings ORDER BY scope, scope_id"
AUDIT = """
SELECT act, at_ms, actor, action, detail, ids FROM outbox_audit WHERE action <> 'move' ORDER BY id
"""
PAUSED_BY = "SELECT paused_by FROM outbox_delivery"
MOVES = "SELECT detail FROM outbox_audit WHERE action = 'move' ORDER BY id"
NOTE = """
INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids) VALUES (%s, %s, %s, %s, %s, %s)
"""
NOTE_MOVE = """
INSERT INTO outbox_audit (at_ms, actor, action, detail)
VALUES (floor(extract(epoch FROM clock_timestamp()) * 1000), %s, 'move', %s)
"""

# Every service's listening session holds the lock.
SERVED = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %(class)s
       AND objid = ('outbox'::regclass::oid::bigint %% 2000000000)
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""

# Whoever writes a sealed outbox gets an error, but for the session that says that it moves.
SEAL = """
CREATE TRIGGER outbox_sealed BEFORE INSERT OR UPDATE OR DELETE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse()
"""
UNSEAL = "DROP TRIGGER IF EXISTS outbox_sealed ON {table}"
SEALED = ("outbox", "outbox_ready", "outbox_claims", "outbox_sent", "outbox_done")
SET_UP = "SELECT set_config('outbox.moving', 'yes', false), set_config('jit', 'off', false)"

_ACCEPTED_AT_MS = 5


class PostgresTransfer:
    """Made by `open_postgres_transfer`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def events(self, after_seq: int, limit: int) -> list[TransferRow]:
        """See TransferStore."""
        values = {"after": after_seq, "limit": limit}
        return [_transfer_row(row) for row in self._connection.execute(EVENTS, values)]

    def by_ids(self, ids: Sequence[str]) -> list[TransferRow]:
        """See TransferStore."""
        return [_transfer_row(row) for row in self._connection.execute(NAMED, {"ids": list(ids)})]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """See TransferStore."""
        return dict(self._connection.execute(PAYLOADS, {"ids": list(ids)}).fetchall())

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """See TransferStore."""
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
        """See TransferStore."""
        with self._connection.transaction():
            self._connection.execute(LEAVE_PLACES, {"ids": list(ids)})
            self._connection.execute(REMOVE, {"ids": list(ids)})

    def metadata(self) -> tuple[list[Scope], list[AuditRow], str | None]:
        """See TransferStore."""
        scopes: list[Scope] = self._connection.execute(SCOPES).fetchall()
        audit: list[AuditRow] = self._connection.execute(AUDIT).fetchall()
        [(paused_by,)] = self._connection.execute(PAUSED_BY).fetchall()
        return scopes, audit, paused_by

    def write_metadata(
        self, scopes: Sequence[Scope], audit: Sequence[AuditRow], paused_by: str | None
    ) -> None:
        """See TransferStore."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_settings")
            cursor.executemany("INSERT INTO outbox_settings VALUES (%s, %s, %s)", scopes)
            cursor.execute("UPDATE outbox_meta SET settings_revision = settings_revision + 1")
            cursor.execute("DELETE FROM outbox_audit WHERE action <> 'move'")
            cursor.executemany(NOTE, audit)
            cursor.execute(
                "UPDATE outbox_delivery SET paused_by = %s, revision = revision + 1", (paused_by,)
            )

    def moves(self) -> list[str]:
        """See TransferStore."""
        return [detail for (detail,) in self._connection.execute(MOVES)]

    def note_move(self, actor: str, detail: str) -> None:
        """See TransferStore."""
        self._connection.execute(NOTE_MOVE, (actor, detail))

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """Seal the outbox inside, by the database; False when a service listens to it.

        It stays sealed while a move into it is not finished, and after a move out of it.
        """
        [(served,)] = self._connection.execute(SERVED, {"class": SERVED_LOCK_CLASS}).fetchall()
        if served:
            yield False
            return
        self._seal(sealed=True)
        try:
            yield True
        finally:
            self._connection.execute(RECOUNT)
            moves = self.moves()
            if not moves or moves[-1].startswith("finished"):
                self._seal(sealed=False)

    def _seal(self, *, sealed: bool) -> None:
        with self._connection.transaction():
            self._connection.execute("SET LOCAL lock_timeout = '10s'")
            for table in SEALED:
                self._connection.execute(sql.SQL(UNSEAL).format(table=sql.Identifier(table)))
                if sealed:
                    self._connection.execute(sql.SQL(SEAL).format(table=sql.Identifier(table)))


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
    *fields, noted_at, notes, trace, key, key_digest, payload_sha256, inngest_id, prefix = row
    seq, accepted_at_ms = fields[0], fields[_ACCEPTED_AT_MS]
    ulid = InngestIds(prefix).ulid(seq, accepted_at_ms, inngest_id)
    history = tuple(zip(noted_at, notes, strict=True))
    return TransferRow(*[*fields, history, trace, key, key_digest, payload_sha256, ulid])


def _values(event: TransferRow, payload: bytes) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(event),
        "dead": event.state == "dead",
        "payload": payload,
    }
