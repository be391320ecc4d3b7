"""An SQLite outbox as a move and a recovery see it.

A row under a claim is given as the pending row that it becomes when its process is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from inngest_outbox.errors import OutboxBusyError, OutboxUnavailableError
from inngest_outbox.outbox.audit import new_act
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import decode_meta, encode_meta
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.move.transfer import Metadata, TransferRow
from inngest_outbox.outbox.move.transfer_metadata import read_metadata, read_moves
from inngest_outbox.outbox.sqlite.file.connection import SQL, connect_read_only
from inngest_outbox.outbox.sqlite.file.lock import sole_writer
from inngest_outbox.outbox.sqlite.file.log import open_alone
from inngest_outbox.outbox.storable import storable

_ACCEPTED_AT_MS = 5
_ISOLATED = 9
_LATER_COLUMNS = 6
_PAST_ALL = 2**63 - 1
_CLEAR = ("outbox_ready", "outbox_claims", "outbox_sent", "outbox_done", "outbox")


class SqliteTransferEvents:
    """The events of the outbox behind `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def page(self, after_seq: int, limit: int, upto_seq: int = _PAST_ALL) -> list[TransferRow]:
        """Events in their order, without their bytes."""
        values = {"after": after_seq, "upto": upto_seq, "limit": limit}
        return [transfer_row(row) for row in self._connection.execute(SQL["TRANSFER_PAGE"], values)]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of these events."""
        found = self._connection.execute(SQL["TRANSFER_PAYLOADS"], {"ids": _json(ids)})
        return dict(found.fetchall())

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """Add these events, which are not here, in their order; atomically."""
        with _transaction(self._connection):
            for event in events:
                values = _values(event, payloads[event.id])
                self._connection.execute(SQL["WRITE"], values)
                places = {"pending": "WRITE_READY", "sent": "WRITE_SENT"}
                self._connection.execute(SQL[places.get(event.state, "WRITE_DONE")], values)

    def clear(self) -> None:
        """Remove all events."""
        with _transaction(self._connection):
            for table in _CLEAR:
                self._connection.execute(f"DELETE FROM {table}")


class SqliteTransferMetadata:
    """The values of scopes, the audit and the pause of the outbox behind `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self) -> Metadata:
        """All of it."""
        return read_metadata(self._connection.execute)

    def write(self, metadata: Metadata) -> None:
        """Replace all of it, atomically."""
        scopes = [
            dict(zip(("scope", "scope_id", "settings"), one, strict=True))
            for one in metadata.scopes
        ]
        paused = {"paused_by": metadata.paused_by, "reason": metadata.pause_reason}
        with _transaction(self._connection) as run:
            run.execute(SQL["DROP_SETTINGS"])
            run.executemany(SQL["SAVE_SCOPE"], scopes)
            run.execute(SQL["DROP_AUDIT"])
            run.executemany(SQL["ADD_AUDIT"], [_audit(*one) for one in metadata.audit])
            run.execute(SQL["TRANSFER_PAUSE"], paused)

    def moves(self) -> list[str]:
        """The details of the moves into this outbox, oldest first."""
        return read_moves(self._connection.execute)

    def note_move(self, actor: str, detail: str) -> None:
        """Add a move to the operator actions."""
        act = new_act(detail)
        row = (act.id, wall_now_ms(), actor, "move", act.chosen, "[]")
        self._connection.execute(SQL["ADD_AUDIT"], _audit(*row))


class SqliteTransfer:
    """The parts of one outbox; made by `open_sqlite_transfer`."""

    def __init__(self, connection: sqlite3.Connection, *, is_ours: bool) -> None:
        self._is_ours = is_ours
        self.events = SqliteTransferEvents(connection)
        self.metadata = SqliteTransferMetadata(connection)

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """False when another process holds the file, else True: this one has its lock."""
        yield self._is_ours


@contextlib.contextmanager
def open_sqlite_transfer(path: Path) -> Iterator[SqliteTransfer]:
    """The outbox at `path`, which exists and is migrated.

    Holds the writer's lock; where another process holds it, the outbox can only be read. Raises
    OutboxUnavailableError.
    """
    with contextlib.ExitStack() as stack:
        is_ours = True
        try:
            stack.enter_context(sole_writer(path))
        except OutboxBusyError:
            is_ours = False
        try:
            opening = open_alone(path) if is_ours else connect_read_only(path)
            with opening as connection:
                yield SqliteTransfer(connection, is_ours=is_ours)
        except sqlite3.Error as error:
            raise OutboxUnavailableError(f"{path} can't be used: {error}.") from error


def transfer_row(row: tuple[Any, ...]) -> TransferRow:
    """The row that a TRANSFER statement gives."""
    *fields, reason, detail, history = row[:-_LATER_COLUMNS]
    meta_text, *key, due_at_ms, payload, prefix = row[-_LATER_COLUMNS:]
    meta = decode_meta(meta_text)
    ulid = InngestIds(prefix).ulid(fields[0], fields[_ACCEPTED_AT_MS], meta)
    fields[_ISOLATED] = bool(fields[_ISOLATED])
    notes = tuple(
        (note["at"], storable(note["note"])) for note in msgspec.json.decode(history or "[]")
    )
    words = [words and storable(words) for words in (reason, detail)]
    payload_sha256 = hashlib.sha256(payload).hexdigest()
    meta = msgspec.structs.replace(meta, moved_id=ulid, due_at_ms=due_at_ms)
    return TransferRow(*[*fields, *words, notes, *key, payload_sha256, meta])


def _values(event: TransferRow, payload: bytes) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(event),
        "meta": encode_meta(event.meta),
        "due_at_ms": event.meta.due_at_ms,
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


def _audit(
    act: str, at_ms: int, actor: str, action: str, detail: str, ids: str
) -> dict[str, object]:
    """The parameters of ADD_AUDIT."""
    row = {"act": act, "at_ms": at_ms, "actor": actor, "action": action}
    return {**row, "detail": detail, "ids": ids}


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction that writes; an error inside takes it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        if connection.in_transaction:  # a full disk ends it
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
