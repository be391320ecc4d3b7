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
from service.outbox.sqlite.lock import sole_writer
from service.outbox.storable import storable
from service.outbox.transfer import AuditEntry, Copied, Scope

_EVENTS = """
SELECT seq, outbox.id, name, user_id, accepted_at,
       CASE WHEN done.seq IS NULL THEN 'pending' ELSE iif(dead, 'dead', 'delivered') END,
       coalesce(ready.attempts, claims.attempts, done.attempts),
       coalesce(ready.sends, claims.sends + 1, done.sends),
       coalesce(ready.isolated, claims.isolated, done.isolated),
       coalesce(ready.first_sent_at, claims.first_sent_at, done.first_sent_at, claimed_at),
       settled_at, reason, detail, coalesce(ready.history, claims.history, done.history, '[]'),
       trace, idempotency_key, digest, payload
FROM outbox LEFT JOIN ready USING (seq) LEFT JOIN claims USING (seq) LEFT JOIN done USING (seq)
"""
EVENTS = f"{_EVENTS} WHERE seq > :after ORDER BY seq LIMIT :limit"
_NAMED = "id IN (SELECT value FROM json_each(:ids))"
NAMED = f"{_EVENTS} WHERE outbox.{_NAMED}"
PAYLOADS = f"SELECT id, payload FROM outbox WHERE {_NAMED}"

WRITE = """
INSERT INTO outbox (id, name, user_id, accepted_at, trace, idempotency_key, digest, payload)
VALUES (:id, :name, :user_id, :accepted_at, :trace, :key, :key_digest, :payload)
ON CONFLICT (id) DO NOTHING
"""
MAKE_READY = """
INSERT INTO ready (seq, bytes, isolated, attempts, sends, first_sent_at, history)
SELECT seq, length(payload), :isolated, :attempts, :sends, :first_sent_at, :history
FROM outbox WHERE id = :id
"""
MAKE_DONE = """
INSERT INTO done (seq, dead, settled_at, isolated, attempts, sends, first_sent_at, history, reason,
                  detail)
SELECT seq, :dead, :settled_at, :isolated, :attempts, :sends, :first_sent_at, :history, :reason,
       :detail
FROM outbox WHERE id = :id
"""
DISPLACE = tuple(
    f"DELETE FROM {place} WHERE seq IN (SELECT seq FROM outbox WHERE {_NAMED})"
    for place in ("ready", "claims", "done")
)
REMOVE = f"DELETE FROM outbox WHERE {_NAMED}"

SCOPES = "SELECT scope, scope_id, settings FROM scopes ORDER BY scope, scope_id"
AUDIT = "SELECT at, actor, action, detail FROM audit WHERE action <> 'move' ORDER BY seq"
PAUSED_BY = "SELECT paused_by FROM outbox_delivery"
MOVES = "SELECT detail FROM audit WHERE action = 'move' ORDER BY seq"
NOTE = "INSERT INTO audit (at, actor, action, detail) VALUES (?, ?, ?, ?)"

_ALONE = 8


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
            self._displace([event.id for event in events])
            for event in events:
                values = _values(event, payloads[event.id])
                self._connection.execute(WRITE, values)
                place = MAKE_READY if event.state == "pending" else MAKE_DONE
                self._connection.execute(place, values)

    def remove(self, ids: Sequence[str]) -> None:
        """See Ledger."""
        with self._transaction():
            self._displace(ids)
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
            run.execute(
                "UPDATE outbox_delivery SET paused_by = ?, revision = revision + 1", (paused_by,)
            )

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

    def _displace(self, ids: Sequence[str]) -> None:
        for statement in DISPLACE:
            self._connection.execute(statement, {"ids": _json(ids)})

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
        "dead": int(event.state == "dead"),
        "attempts": event.attempts,
        "sends": event.sends,
        "isolated": int(event.isolated),
        "first_sent_at": event.first_sent_at_ms,
        "settled_at": event.settled_at_ms,
        "reason": event.reason,
        "detail": event.detail,
        "history": _json([{"at": at_ms, "note": note} for at_ms, note in event.history])
        if event.history
        else None,
        "trace": event.trace,
        "key": event.key,
        "key_digest": event.key_digest,
        "payload": payload,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
