"""A PostgreSQL outbox as a move sees it: what it reads and writes, and the seal.

While a move writes, the database refuses every other writer. So even a service that the move did
not see can't write a sealed outbox, nor can an application append to it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from inngest_outbox.errors import OutboxMoveError, OutboxUnavailableError
from inngest_outbox.outbox.event import decode_meta, encode_meta
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.move.transfer import Metadata, TransferRow
from inngest_outbox.outbox.move.transfer_metadata import read_metadata, read_moves
from inngest_outbox.outbox.postgres.confirmations import ids_of
from inngest_outbox.outbox.postgres.database.connection import (
    connection_string,
    in_schema,
    schema_of,
    statements,
)
from inngest_outbox.outbox.postgres.database.faults import fault_at
from inngest_outbox.outbox.postgres.inbox import TURN_SECONDS

_SET_UP = """
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
       pg_catalog.set_config('outbox_move.under_way', 'yes', false),
       pg_catalog.set_config('jit', 'off', false)
"""
_NOTE_MOVE = """
INSERT INTO outbox.audit (at_ms, actor, action, detail)
SELECT at_ms, %s, 'move', %s FROM outbox.moment
"""
_PUT_ON = """
CREATE TRIGGER outbox_sealed BEFORE INSERT OR UPDATE OR DELETE ON outbox.{0}
FOR EACH STATEMENT EXECUTE FUNCTION outbox.refuse()
"""
_TAKE_OFF = "DROP TRIGGER IF EXISTS outbox_sealed ON outbox.{0}"
_SEALED = ("events", "ready", "claims", "sent", "done", "inbox", "turns")
# The tables of both dialects, as a move's statements name them.
_TABLE = re.compile(r"\boutbox_(?=settings|audit|delivery)")
_ACCEPTED_AT_MS = 5
_PART_BYTES = 2**24


class _Session:
    """The connection of a move; statements of the store by their names."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self.connection = connection
        self.schema = schema
        self._statements = statements(schema)

    def run(self, name: str, given: Mapping[str, object] | None = None) -> psycopg.Cursor[Any]:
        """Run a named statement."""
        return self.connection.execute(self._statements[name], given)

    def execute(self, text: str, given: Sequence[object] | None = None) -> psycopg.Cursor[Any]:
        """Run other SQL of ours."""
        text = _TABLE.sub("outbox.", text)
        return self.connection.execute(in_schema(text, self.schema).encode(), given)


class PostgresTransferEvents:
    """The events of the outbox."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def page(self, after_seq: int, limit: int) -> list[TransferRow]:
        """As the port says."""
        ids = ids_of(self._session.run("PREFIXES"))
        rows = self._session.run("TRANSFER_PAGE", {"after": after_seq, "limit": limit})
        return [_transfer_row(row, ids) for row in rows]

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """As the port says."""
        return dict(self._session.run("TRANSFER_PAYLOADS", {"ids": list(ids)}).fetchall())

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """As the port says."""
        with self._session.connection.transaction():
            for part in _parts(events, payloads):
                self._session.run("TRANSFER_WRITE", _columns(part, payloads))

    def clear(self) -> None:
        """As the port says."""
        self._session.run("TRANSFER_CLEAR")


class PostgresTransferMetadata:
    """The values of scopes, the audit and the pause of the outbox."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def read(self) -> Metadata:
        """As the port says."""
        return read_metadata(self._session.execute)

    def write(self, metadata: Metadata) -> None:
        """As the port says."""
        acts: list[list[object]] = [[one[at] for one in metadata.audit] for at in range(6)]
        names = ("acts", "at_ms", "actors", "actions", "details", "ids")
        given = dict(zip(names, acts, strict=True))
        pause = {"paused_by": metadata.paused_by, "pause_reason": metadata.pause_reason}
        scopes = [[scope[at] for scope in metadata.scopes] for at in range(3)]
        with self._session.connection.transaction():
            self._session.run("TRANSFER_METADATA", {**given, **pause})
            kept = dict(zip(("scopes", "scope_ids", "settings"), scopes, strict=True))
            self._session.run("TRANSFER_SETTINGS", kept)

    def moves(self) -> list[str]:
        """As the port says."""
        return read_moves(self._session.execute)

    def note_move(self, actor: str, detail: str) -> None:
        """As the port says."""
        self._session.execute(_NOTE_MOVE, (actor, detail))


class PostgresTransfer:
    """The parts of one outbox; made by `open_postgres_transfer`."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self.events = PostgresTransferEvents(session)
        self.metadata = PostgresTransferMetadata(session)

    @contextlib.contextmanager
    def unserved(self) -> Iterator[bool]:
        """Seal the outbox inside, by the database; False when a service serves it.

        It stays sealed while a move into it is not finished, and after a move out of it. Raises
        OutboxMoveError while appended events wait in the inbox.
        """
        [(is_served,)] = self._session.run("SERVED", {"seconds": TURN_SECONDS}).fetchall()
        if is_served:
            yield False
            return
        self._seal(_TAKE_OFF, _PUT_ON)
        try:
            self._check_inbox()
            yield True
        finally:
            self._session.run("RECOUNT")
            moves = self.metadata.moves()
            if not moves or moves[-1].startswith("finished"):
                self._seal(_TAKE_OFF)

    def _check_inbox(self) -> None:
        [(waiting,)] = self._session.run("IN_INBOX").fetchall()
        if waiting:
            raise OutboxMoveError(
                f"{waiting} events that were appended in SQL are not taken yet: start the service, "
                "wait until it has taken them, and stop it again."
            )

    def _seal(self, *texts: str) -> None:
        with self._session.connection.transaction():
            self._session.execute("SET LOCAL lock_timeout = '10s'")
            for table in _SEALED:
                for text in texts:
                    self._session.execute(text.format(table))


@contextlib.contextmanager
def open_postgres_transfer(url: str) -> Iterator[PostgresTransfer]:
    """The outbox at `url`, which is migrated. Raises OutboxUnavailableError."""
    address = connection_string(url)
    try:
        with psycopg.connect(address, autocommit=True, prepare_threshold=None) as connection:
            connection.execute(_SET_UP)
            yield PostgresTransfer(_Session(connection, schema_of(url)))
    except psycopg.Error as error:
        raise OutboxUnavailableError(fault_at(url, error)) from error


def _transfer_row(row: tuple[Any, ...], ids: InngestIds) -> TransferRow:
    *place, noted_at, notes, key, digest, payload_sha256, meta_text, due_at_ms = row
    meta = decode_meta(meta_text)
    ulid = ids.ulid(place[0], place[_ACCEPTED_AT_MS], meta)
    meta = msgspec.structs.replace(meta, moved_id=ulid, due_at_ms=due_at_ms)
    history = tuple(zip(noted_at or (), notes or (), strict=True))
    return TransferRow(*[*place, history, key, digest, payload_sha256, meta])


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
    """The parameters of TRANSFER_WRITE."""
    notes = [(event.id, at_ms, note) for event in events for at_ms, note in event.history]
    fields = TransferRow.__struct_fields__
    return {
        **{name: [getattr(event, name) for event in events] for name in fields},
        "meta": [encode_meta(event.meta) for event in events],
        "due_at_ms": [event.meta.due_at_ms for event in events],
        "payload": [payloads[event.id] for event in events],
        "noted": [event_id for event_id, _, _ in notes],
        "noted_at_ms": [at_ms for _, at_ms, _ in notes],
        "note": [note for _, _, note in notes],
    }
