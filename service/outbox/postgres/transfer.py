"""A PostgreSQL outbox as a move sees it (see `move.Ledger`).

Reads beside running services. Nobody can be kept from serving it, so it counts as served while a
service's connection is open. A row under a claim is given as the pending row that it becomes when
its lease ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from service.errors import OutboxUnavailableError
from service.outbox.inngest_id import InngestIds
from service.outbox.transfer import AuditEntry, Copied, Scope

_EVENTS = """
SELECT o.seq, o.event_id, o.name, o.owner, o.user_id, o.accepted_at_ms, p.state, p.attempts,
       p.sends, p.isolated, p.first_sent_at_ms, p.settled_at_ms, p.reason, p.detail,
       ARRAY(SELECT at_ms FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
       ARRAY(SELECT note FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
       o.trace, o.idempotency_key, encode(o.idempotency_digest, 'hex'),
       encode(sha256(o.payload), 'hex'), o.inngest_id,
       (SELECT inngest_id_prefix FROM outbox_meta)
FROM outbox o CROSS JOIN LATERAL (
    SELECT 'pending' AS state, attempts, sends, isolated, first_sent_at_ms,
           NULL::bigint AS settled_at_ms, NULL AS reason, NULL AS detail
    FROM outbox_ready WHERE seq = o.seq
    UNION ALL
    SELECT CASE WHEN dead THEN 'dead' ELSE 'delivered' END, attempts, sends, isolated,
           first_sent_at_ms, settled_at_ms, reason, detail
    FROM outbox_done WHERE seq = o.seq
    UNION ALL
    SELECT 'pending', u.attempts, u.sends + 1, u.isolated,
           coalesce(u.first_sent_at_ms, c.claimed_at_ms), NULL, NULL, NULL
    FROM outbox_claims c, unnest(c.seqs, c.attempts, c.sends, c.isolated, c.first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
    WHERE u.seq = o.seq
    OFFSET 0
) AS p
"""
EVENTS = f"{_EVENTS} WHERE o.seq > %(after)s ORDER BY o.seq LIMIT %(limit)s"
NAMED = f"{_EVENTS} WHERE o.event_id = ANY(%(ids)s::text[])"
PAYLOADS = "SELECT event_id, payload FROM outbox WHERE event_id = ANY(%(ids)s::text[])"
SEQS = "SELECT event_id, seq FROM outbox WHERE event_id = ANY(%(ids)s::text[])"

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
PUT_NOTE = """
INSERT INTO outbox_notes (seq, at_ms, note)
SELECT seq, %(at_ms)s::bigint, %(note)s::text FROM outbox WHERE event_id = %(id)s
"""
LEAVE_PLACES = """
WITH named AS (SELECT seq FROM outbox WHERE event_id = ANY(%(ids)s::text[])),
ready AS (DELETE FROM outbox_ready WHERE seq = ANY(ARRAY(SELECT seq FROM named))),
done AS (DELETE FROM outbox_done WHERE seq = ANY(ARRAY(SELECT seq FROM named)))
DELETE FROM outbox_notes WHERE seq = ANY(ARRAY(SELECT seq FROM named))
"""
REMOVE = "DELETE FROM outbox WHERE event_id = ANY(%(ids)s::text[])"

SCOPES = "SELECT scope, scope_id, settings FROM outbox_settings ORDER BY scope, scope_id"
AUDIT = "SELECT at_ms, actor, action, detail FROM outbox_audit WHERE action <> 'move' ORDER BY id"
PAUSED_BY = "SELECT paused_by FROM outbox_delivery"
MOVES = "SELECT detail FROM outbox_audit WHERE action = 'move' ORDER BY id"
NOTE = "INSERT INTO outbox_audit (at_ms, actor, action, detail) VALUES (%s, %s, %s, %s)"
NOTE_MOVE = """
INSERT INTO outbox_audit (at_ms, actor, action, detail)
VALUES (floor(extract(epoch FROM clock_timestamp()) * 1000), %s, 'move', %s)
"""

# Every service of this version listens.
SERVED = """
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'outbox')
"""

_ACCEPTED_AT_MS = 5


class PostgresLedger:
    """Made by `open_postgres_ledger`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def events(self, after_seq: int, limit: int) -> list[Copied]:
        """See Ledger."""
        values = {"after": after_seq, "limit": limit}
        return [_copied(row) for row in self._connection.execute(EVENTS, values)]

    def named(self, ids: Sequence[str]) -> list[Copied]:
        """See Ledger."""
        return [_copied(row) for row in self._connection.execute(NAMED, {"ids": list(ids)})]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """See Ledger."""
        return dict(self._connection.execute(PAYLOADS, {"ids": list(ids)}).fetchall())

    def write(self, events: Sequence[Copied], payloads: Mapping[str, bytes]) -> None:
        """See Ledger."""
        values = [_values(event, payloads[event.id]) for event in events]
        waiting = [one for one in values if one["state"] == "pending"]
        done = [one for one in values if one["state"] != "pending"]
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
                (PUT_DONE, done),
                (PUT_NOTE, notes),
            ):
                cursor.executemany(statement, rows)

    def remove(self, ids: Sequence[str]) -> None:
        """See Ledger."""
        with self._connection.transaction():
            self._connection.execute(LEAVE_PLACES, {"ids": list(ids)})
            self._connection.execute(REMOVE, {"ids": list(ids)})

    def surroundings(self) -> tuple[list[Scope], list[AuditEntry], str | None]:
        """See Ledger."""
        scopes: list[Scope] = self._connection.execute(SCOPES).fetchall()
        audit: list[AuditEntry] = self._connection.execute(AUDIT).fetchall()
        [(paused_by,)] = self._connection.execute(PAUSED_BY).fetchall()
        return scopes, audit, paused_by

    def surround(
        self, scopes: Sequence[Scope], audit: Sequence[AuditEntry], paused_by: str | None
    ) -> None:
        """See Ledger."""
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
        """See Ledger."""
        return [detail for (detail,) in self._connection.execute(MOVES)]

    def note_move(self, actor: str, detail: str) -> None:
        """See Ledger."""
        self._connection.execute(NOTE_MOVE, (actor, detail))

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """See Ledger."""
        [(served,)] = self._connection.execute(SERVED).fetchall()
        yield not served


@contextlib.contextmanager
def open_postgres_ledger(url: str) -> Iterator[PostgresLedger]:
    """The outbox at `url`, which is migrated. Raises OutboxUnavailableError."""
    try:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            yield PostgresLedger(connection)
    except psycopg.Error as error:
        raise OutboxUnavailableError(
            f"The outbox's database can't be used: {type(error).__name__}"
        ) from error


def _copied(row: tuple[Any, ...]) -> Copied:
    *fields, noted_at, notes, trace, key, key_digest, payload_sha256, inngest_id, prefix = row
    seq, accepted_at_ms = fields[0], fields[_ACCEPTED_AT_MS]
    ulid = InngestIds(prefix).ulid(seq, accepted_at_ms, inngest_id)
    history = tuple(zip(noted_at, notes, strict=True))
    return Copied(*[*fields, history, trace, key, key_digest, payload_sha256, ulid])


def _values(event: Copied, payload: bytes) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(event),
        "dead": event.state == "dead",
        "payload": payload,
    }
