"""An SQLite outbox as a move sees it (see `move.Ledger`).

Reads beside a running service; writes only as the file's sole writer. A row under a claim is given
as the pending row that it becomes when its process is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from service.errors import OutboxBusyError, OutboxUnavailableError
from service.outbox.clock import wall_now_ms
from service.outbox.move import AuditEntry, Copied, Scope
from service.outbox.postgres_queue import storable
from service.outbox.sqlite_lock import sole_writer

_EVENTS = """
SELECT outbox.seq, id, name, user_id, accepted_at,
       CASE state WHEN 0 THEN 'pending' WHEN 1 THEN 'delivered' ELSE 'dead' END,
       attempts, sends + (claims.seq IS NOT NULL), alone,
       coalesce(first_sent_at, claims.claimed_at), settled_at, reason, detail, history, trace,
       idempotency_key, digest, payload
FROM outbox LEFT JOIN claims ON claims.seq = outbox.seq
"""
EVENTS = f"{_EVENTS} WHERE outbox.seq > :after ORDER BY outbox.seq LIMIT :limit"
NAMED = f"{_EVENTS} WHERE id IN (SELECT value FROM json_each(:ids))"
PAYLOADS = "SELECT id, payload FROM outbox WHERE id IN (SELECT value FROM json_each(:ids))"

WRITE = """
INSERT INTO outbox (id, name, user_id, accepted_at, state, attempts, sends, alone, first_sent_at,
                    settled_at, reason, detail, history, trace, idempotency_key, digest, payload)
VALUES (:id, :name, :user_id, :accepted_at, :state, :attempts, :sends, :alone, :first_sent_at,
        :settled_at, :reason, :detail, :history, :trace, :key, :key_digest, :payload)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, attempts = excluded.attempts, sends = excluded.sends,
    alone = excluded.alone, first_sent_at = excluded.first_sent_at, due_at = 0,
    settled_at = excluded.settled_at, reason = excluded.reason, detail = excluded.detail,
    history = excluded.history
"""
REMOVE = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(:ids))"

SCOPES = "SELECT scope, scope_id, settings FROM scopes ORDER BY scope, scope_id"
AUDIT = "SELECT at, actor, action, detail FROM audit WHERE action <> 'move' ORDER BY seq"
PAUSED_BY = "SELECT paused_by FROM lane"
MOVES = "SELECT detail FROM audit WHERE action = 'move' ORDER BY seq"
NOTE = "INSERT INTO audit (at, actor, action, detail) VALUES (?, ?, ?, ?)"

_ALONE = 8
_STATES = {"pending": 0, "delivered": 1, "dead": 2}


class SqliteLedger:
    """Made by `open_sqlite_ledger`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def events(self, after_seq: int, limit: int) -> list[Copied]:
        """See Ledger."""
        values = {"after": after_seq, "limit": limit}
        return [_copied(row) for row in self._connection.execute(EVENTS, values)]

    def named(self, ids: Sequence[str]) -> list[Copied]:
        """See Ledger."""
        return [_copied(row) for row in self._connection.execute(NAMED, {"ids": _json(ids)})]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """See Ledger."""
        return dict(self._connection.execute(PAYLOADS, {"ids": _json(ids)}).fetchall())

    def write(self, events: Sequence[Copied], payloads: Mapping[str, bytes]) -> None:
        """See Ledger."""
        with self._transaction():
            for event in events:
                self._connection.execute(WRITE, _values(event, payloads[event.id]))

    def remove(self, ids: Sequence[str]) -> None:
        """See Ledger."""
        with self._transaction():
            self._connection.execute(REMOVE, {"ids": _json(ids)})

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
        run = self._connection
        with self._transaction():
            run.execute("DELETE FROM scopes")
            run.executemany("INSERT INTO scopes VALUES (?, ?, ?, 0)", scopes)
            run.execute("DELETE FROM audit WHERE action <> 'move'")
            run.executemany(NOTE, audit)
            run.execute("UPDATE lane SET paused_by = ?, revision = revision + 1", (paused_by,))

    def moves(self) -> list[str]:
        """See Ledger."""
        return [detail for (detail,) in self._connection.execute(MOVES)]

    def note_move(self, actor: str, detail: str) -> None:
        """See Ledger."""
        with self._transaction():
            self._connection.execute(NOTE, (wall_now_ms(), actor, "move", detail))

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """See Ledger: the writer's lock is held inside."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(sole_writer(self._path))
                ours = True
            except OutboxBusyError:
                ours = False
            yield ours

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


@contextlib.contextmanager
def open_sqlite_ledger(path: Path) -> Iterator[SqliteLedger]:
    """The outbox at `path`, which is there and migrated. Raises OutboxUnavailableError."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield SqliteLedger(path, connection)
    except sqlite3.Error as error:
        raise OutboxUnavailableError(f"The outbox's database can't be used: {error}") from error


def _copied(row: tuple[Any, ...]) -> Copied:
    *fields, reason, detail, history, trace, key, key_digest, payload = row
    fields[_ALONE] = bool(fields[_ALONE])
    notes = tuple((note["at"], storable(note["note"])) for note in msgspec.json.decode(history))
    words = [words and storable(words) for words in (reason, detail)]
    payload_sha256 = hashlib.sha256(payload).hexdigest()
    return Copied(*[*fields, *words, notes, trace, key, key_digest, payload_sha256])


def _values(event: Copied, payload: bytes) -> dict[str, object]:
    return {
        "id": event.id,
        "name": event.name,
        "user_id": event.user_id,
        "accepted_at": event.accepted_at_ms,
        "state": _STATES[event.state],
        "attempts": event.attempts,
        "sends": event.sends,
        "alone": int(event.alone),
        "first_sent_at": event.first_sent_at_ms,
        "settled_at": event.settled_at_ms,
        "reason": event.reason,
        "detail": event.detail,
        "history": _json([{"at": at_ms, "note": note} for at_ms, note in event.history]),
        "trace": event.trace,
        "key": event.key,
        "key_digest": event.key_digest,
        "payload": payload,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
