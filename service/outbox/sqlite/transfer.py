"""An SQLite outbox as a move sees it.

A move holds the writer's lock. A row under a claim is given as the pending row that it becomes when
its process is gone.
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
from service.outbox.event import Meta, decode_meta, encode_meta
from service.outbox.inngest_id import InngestIds
from service.outbox.move.transfer import TransferRow
from service.outbox.sqlite.faults import is_io_error
from service.outbox.sqlite.lock import WriterLock, sole_writer
from service.outbox.sqlite.transfer_metadata import SqliteTransferMetadata, transaction
from service.outbox.sqlite.wal import WriteAheadLog
from service.outbox.storable import storable

# A claimed row is given as the pending row that it becomes when its process is gone.
_EVENTS = """
SELECT seq, event_id, name, owner, user_id, accepted_at_ms,
       iif(state = 'delivering', 'pending', state), attempts, sends + (state = 'delivering'),
       isolated, first_sent_at_ms, coalesce(settled_at_ms, sent_at_ms), reason, detail,
       coalesce(history, '[]'), meta, idempotency_key, idempotency_digest,
       iif(held, due_at_ms, 0), payload, (SELECT inngest_id_prefix FROM outbox_meta)
FROM {source} CROSS JOIN outbox_rows USING (seq)
"""
_SOURCE = "(SELECT seq, payload FROM outbox)"
EVENTS = f"""
{_EVENTS.format(source=_SOURCE)} WHERE seq > :after
ORDER BY seq LIMIT :limit
"""
EVENTS_BETWEEN = f"""
{_EVENTS.format(source=_SOURCE)} WHERE seq > :after AND seq <= :upto ORDER BY seq
"""
PAYLOADS = (
    "SELECT event_id, payload FROM outbox WHERE event_id IN (SELECT value FROM json_each(:ids))"
)

WRITE = """
INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, meta, idempotency_key,
                    idempotency_digest, payload)
VALUES (:id, :name, :owner, :user_id, :accepted_at_ms, :meta, :key, :key_digest, :payload)
"""
WRITE_READY = """
INSERT INTO outbox_ready (seq, payload_bytes, due_at_ms, held, isolated, attempts, sends,
                          first_sent_at_ms, history)
SELECT seq, length(payload), :due_at_ms, :due_at_ms > 0, :isolated, :attempts, :sends,
       :first_sent_at_ms, :history
FROM outbox WHERE event_id = :id
"""
WRITE_SENT = """
INSERT INTO outbox_sent (seq, sent_at_ms, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, :settled_at_ms, :isolated, :attempts, :sends, :first_sent_at_ms, :history
FROM outbox WHERE event_id = :id
"""
WRITE_DONE = """
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends, first_sent_at_ms,
                         history, reason, detail)
SELECT seq, :dead, :settled_at_ms, :isolated, :attempts, :sends, :first_sent_at_ms, :history,
       :reason, :detail
FROM outbox WHERE event_id = :id
"""
CLEAR = tuple(
    f"DELETE FROM {table}"
    for table in ("outbox_ready", "outbox_claims", "outbox_sent", "outbox_done", "outbox")
)

_ACCEPTED_AT_MS = 5
_ISOLATED = 9
_LATER_COLUMNS = 6


class SqliteTransferEvents:
    """The events of the outbox behind `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def page(self, after_seq: int, limit: int) -> list[TransferRow]:
        """Events in their order, without their bytes."""
        values = {"after": after_seq, "limit": limit}
        return [transfer_row(row) for row in self._connection.execute(EVENTS, values)]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of these events."""
        return dict(self._connection.execute(PAYLOADS, {"ids": _json(ids)}).fetchall())

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """Add these events, which are not here, in their order; atomically."""
        with transaction(self._connection):
            for event in events:
                values = _values(event, payloads[event.id])
                self._connection.execute(WRITE, values)
                place = {"pending": WRITE_READY, "sent": WRITE_SENT}.get(event.state, WRITE_DONE)
                self._connection.execute(place, values)

    def clear(self) -> None:
        """Remove all events."""
        with transaction(self._connection):
            for statement in CLEAR:
                self._connection.execute(statement)


class SqliteTransfer:
    """The parts of one outbox; made by `open_sqlite_transfer`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._log = WriteAheadLog(path)
        self.events = SqliteTransferEvents(connection)
        self.metadata = SqliteTransferMetadata(connection)

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """Hold the writer's lock inside; False when another process holds it."""
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(sole_writer(self._path))
            except OutboxBusyError:
                yield False
                return
            stack.enter_context(self._trusted_log(lock))
            yield True

    @contextlib.contextmanager
    def _trusted_log(self, lock: WriterLock) -> Iterator[None]:
        """Note an I/O error, which leaves a hole in the log.

        The next pass begins with a new log.
        """
        if lock.suspects_log:
            self._log.renew(self._connection)
            lock.suspect_log(suspected=False)
        try:
            yield
        except sqlite3.Error as error:
            if is_io_error(error):
                lock.suspect_log(suspected=True)
            raise


@contextlib.contextmanager
def open_sqlite_transfer(path: Path) -> Iterator[SqliteTransfer]:
    """The outbox at `path`, which exists and is migrated. Raises OutboxUnavailableError."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield SqliteTransfer(path, connection)
    except sqlite3.Error as error:
        raise OutboxUnavailableError(f"The outbox's database can't be used: {error}") from error


def transfer_row(row: tuple[Any, ...]) -> TransferRow:
    """The row that `_EVENTS` gives."""
    *fields, reason, detail, history = row[:-_LATER_COLUMNS]
    meta_text, *key, due_at_ms, payload, prefix = row[-_LATER_COLUMNS:]
    meta = decode_meta(meta_text)
    ulid = InngestIds(prefix).ulid(fields[0], fields[_ACCEPTED_AT_MS], meta)
    fields[_ISOLATED] = bool(fields[_ISOLATED])
    notes = tuple((note["at"], storable(note["note"])) for note in msgspec.json.decode(history))
    words = [words and storable(words) for words in (reason, detail)]
    payload_sha256 = hashlib.sha256(payload).hexdigest()
    origin = (meta.trace, *key, payload_sha256, ulid, meta.wire_id, meta.environment, due_at_ms)
    return TransferRow(*[*fields, *words, notes, *origin])


def _values(event: TransferRow, payload: bytes) -> dict[str, object]:
    meta = Meta(event.wire_id, event.environment, event.due_at_ms, event.trace, event.inngest_id)
    return {
        **msgspec.structs.asdict(event),
        "meta": encode_meta(meta),
        "dead": int(event.state == "dead"),
        "isolated": int(event.isolated),
        "history": _notes(event),
        "payload": payload,
    }


def _notes(event: TransferRow) -> str | None:
    notes = [{"at": at_ms, "note": note} for at_ms, note in event.history]
    return _json(notes) if notes else None


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
