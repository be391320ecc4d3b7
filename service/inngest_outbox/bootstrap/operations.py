"""The parts of an outbox for the `outbox` commands, made from OUTBOX_URL.

An inspector opens an SQLite file for reading only: a command can neither hold up nor checkpoint
the outbox of a running service. It works on a copy and without a service. Repairs go through the
process that holds the file, or take its place. A wrong address ends in an OutboxError.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from inngest_outbox.bootstrap.stores import open_outbox
from inngest_outbox.config.outbox_url import sqlite_path
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.actions import SessionSignOuts, SignOuts
from inngest_outbox.console.operations.erasure import UNTIL_VACUUM, ErasureParts
from inngest_outbox.console.operations.key_needs import KeyNeeds, key_needs
from inngest_outbox.encryption import Encryption
from inngest_outbox.errors import (
    OutboxBusyError,
    OutboxMoveError,
    OutboxNotFoundError,
    OutboxUnavailableError,
)
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox import schema
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.outbox import remote
from inngest_outbox.outbox.link.served import COMMAND_POLICY, COMMANDS
from inngest_outbox.outbox.link.store_link import StoreLink, open_link
from inngest_outbox.outbox.move.move import Moved, move
from inngest_outbox.outbox.move.transfer import TransferStore
from inngest_outbox.outbox.parts import ReadParts
from inngest_outbox.outbox.ports import Inspector, Positions, Repairs
from inngest_outbox.outbox.schema import migrate, pending
from inngest_outbox.outbox.sqlite.file import backup
from inngest_outbox.outbox.sqlite.file.connection import SqliteConnection, open_read_only
from inngest_outbox.outbox.sqlite.file.journalled import Known, known_starts
from inngest_outbox.outbox.sqlite.file.lock import writer_of
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog
from inngest_outbox.outbox.sqlite.file.recover import RecoveredFile, recover
from inngest_outbox.outbox.sqlite.file.transfer import open_sqlite_transfer
from inngest_outbox.outbox.sqlite.inspector import SqliteInspector, SqlitePositions
from inngest_outbox.outbox.sqlite.recovery import find_damage
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.runs.figures import NAMES, KeptNames, load_names, names_of
from inngest_outbox.runs.turn import SCOPE

if TYPE_CHECKING:
    from inngest_outbox.journal.desk import JournalDesk, JournalLook
    from inngest_outbox.outbox.postgres.store import PostgresOutbox

_TABLES = """
SELECT count(*) FROM sqlite_master WHERE name IN ('outbox', 'outbox_claims', 'outbox_delivery')
"""
_APPLIED = "SELECT id FROM outbox_migrations"
_TABLE_COUNT = 3
_LOOK_SECONDS = 1.0
_SCOPE = "SELECT settings FROM outbox_settings WHERE scope = ? AND scope_id = ?"


@dataclass(frozen=True, slots=True)
class _ReadOnly:
    """An SQLite outbox that is only read."""

    inspector: Inspector
    positions: Positions


@dataclass(frozen=True, slots=True)
class Writing:
    """The changes that a person may make."""

    repairs: Repairs
    sign_outs: SignOuts


@contextlib.asynccontextmanager
async def open_reading(url: str) -> AsyncIterator[ReadParts]:
    """The outbox at `url`, for reading. Raises OutboxError."""
    path = sqlite_path(url)
    if path is None:
        async with _postgres(url) as operations:
            yield operations
        return
    _check_readable(path)
    async with _open_file(path) as connection:
        await connection.run(_check_schema)
        yield _ReadOnly(SqliteInspector(connection, path), SqlitePositions(connection))


async def known_names(url: str) -> KeptNames:
    """The runs of each name as the service on the outbox at `url` knows them.

    Raises OutboxError.
    """
    path = sqlite_path(url)
    if path is None:
        async with _postgres(url) as operations:
            return await load_names(operations.scopes)
    async with _open_file(path) as connection:
        return names_of(await connection.run(_load_names))


async def needed_keys(url: str, keys: Sequence[str]) -> KeyNeeds:
    """The keys that waiting events of the outbox at `url` need, of `keys`. Raises OutboxError."""
    async with open_reading(url) as outbox:
        return await key_needs(outbox, Encryption(keys) if keys else None)


@contextlib.asynccontextmanager
async def open_writing(url: str) -> AsyncIterator[Writing]:
    """The outbox at `url`, for a person's changes. Raises OutboxError.

    They go through the process that holds an SQLite file, else this is that process.
    """
    async with open_reading(url):
        pass  # a wrong address or an older schema is said before anything is opened for writing
    path = sqlite_path(url)
    if path is None:
        async with _postgres(url) as operations:
            yield Writing(operations.repairs, SessionSignOuts(operations.scopes))
        return
    holder = writer_of(path)
    if holder is None:
        async with _alone(path) as outbox:
            yield Writing(outbox.repairs, SessionSignOuts(outbox.scopes))
        return
    async with _open_link(path, holder) as link:
        repairs = cast("Repairs", remote(Repairs, link, COMMANDS))
        yield Writing(repairs, cast("SignOuts", remote(SignOuts, link)))


@contextlib.asynccontextmanager
async def open_erasure(url: str) -> AsyncIterator[ErasureParts]:
    """The parts that erase an owner of the outbox at `url`. Raises OutboxError."""
    # The writer is first: a file at rest is read as one that never changes.
    async with open_writing(url) as writer, open_reading(url) as reading:
        yield ErasureParts(
            reading.inspector,
            reading.positions,
            writer.repairs,
            writer.sign_outs,
            UNTIL_VACUUM if sqlite_path(url) is None else (),
        )


def back_up(url: str, target: Path, progress: Callable[[int, int], None]) -> int:
    """Copy the SQLite outbox at `url` to the new file `target`; returns its size in bytes.

    `progress` gets the pages copied and the pages in all. Raises OutboxError.
    """
    path = sqlite_path(url)
    if path is None:
        raise OutboxUnavailableError("PostgreSQL has its own backups, such as pg_dump.")
    _check_readable(path)
    return backup.back_up(path, target, progress)


def recover_file(url: str, target: Path, progress: Callable[[int, int], None]) -> RecoveredFile:
    """Copy what can be read of the SQLite outbox at `url` to the new file `target`.

    `progress` gets the rows read and the rows in all. Raises OutboxError.
    """
    path = sqlite_path(url)
    if path is None:
        raise OutboxUnavailableError("PostgreSQL has its own ways to recover a database.")
    _check_readable(path)
    return recover(path, target, progress)


def is_served(url: str) -> bool | None:
    """True when a service holds the SQLite outbox at `url`; None for PostgreSQL."""
    path = sqlite_path(url)
    return None if path is None else writer_of(path) is not None


async def service_status(url: str) -> Status | None:
    """The status of the service on the SQLite outbox at `url`.

    None when no service holds it, and for PostgreSQL. Raises OutboxError when the service does not
    answer.
    """
    path = sqlite_path(url)
    holder = None if path is None else writer_of(path)
    socket = holder.get("socket") if holder else None
    if not isinstance(socket, str):
        return None
    async with open_link(socket, COMMAND_POLICY) as link:
        return link.status


async def file_faults(url: str) -> list[str]:
    """The faults that a short look finds in the file of the SQLite outbox at `url`.

    Empty for PostgreSQL. Raises OutboxError.
    """
    path = sqlite_path(url)
    if path is None:
        return []
    async with _open_file(path) as connection:
        damage = await connection.run(find_damage, _LOOK_SECONDS)
    return [f"The outbox's file is damaged: {damage}. Run `outbox recover`."] if damage else []


def move_outbox(
    source_url: str, target_url: str, *, actor: str, progress: Callable[[int, int], None]
) -> Moved:
    """Move everything from `source_url` to `target_url`, which is made and migrated where needed.

    Raises OutboxMoveError, SchemaTooNewError, OutboxUnavailableError.
    """
    if source_url == target_url:
        raise OutboxMoveError("The source and the target are the same outbox.")
    if pending(source_url):
        raise OutboxUnavailableError(
            "There is no outbox at the source, or its schema is older than this program: run "
            "`python -m inngest_outbox migrate` with its OUTBOX_URL."
        )
    with _transfer(source_url) as source:
        return move(source, _target(target_url), actor=actor, progress=progress)


@contextlib.contextmanager
def _target(url: str) -> Iterator[TransferStore]:
    migrate(url)
    with _transfer(url) as target:
        yield target


@contextlib.contextmanager
def _transfer(url: str) -> Iterator[TransferStore]:
    path = sqlite_path(url)
    if path is not None:
        with open_sqlite_transfer(path) as sqlite:
            yield sqlite
    else:
        from inngest_outbox.outbox.postgres.transfer import open_postgres_transfer

        with open_postgres_transfer(url) as postgres:
            yield postgres


@contextlib.asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[PostgresOutbox]:
    from inngest_outbox.outbox.postgres.store import open_postgres_operations

    async with open_postgres_operations(url) as operations:
        yield operations


@contextlib.asynccontextmanager
async def open_journal_look(settings: Settings) -> AsyncIterator[JournalLook]:
    """The journal as the file of the outbox sees it. Changes nothing. Raises OutboxError."""
    from inngest_outbox.bootstrap.journal import journal_reader

    if writer_of(_journalled_file(settings)) is not None:
        async with open_journal_desk(settings) as desk:
            yield desk
    else:
        async with journal_reader(settings, await _known_starts(settings)) as reader:
            yield reader


@contextlib.asynccontextmanager
async def open_journal_desk(settings: Settings) -> AsyncIterator[JournalDesk]:
    """The journal of the service, or where none runs of this process. Raises OutboxError."""
    from inngest_outbox.journal.desk import JournalDesk

    path = _journalled_file(settings)
    holder = writer_of(path)
    if holder is None:
        async with open_outbox(settings) as outbox:
            yield cast("JournalDesk", outbox.journal)
    else:
        async with _open_link(path, holder) as link:
            yield cast("JournalDesk", remote(JournalDesk, link))


def _journalled_file(settings: Settings) -> Path:
    path = sqlite_path(settings.store_url)
    if path is None or settings.journal is None:
        raise OutboxUnavailableError(
            "OUTBOX_JOURNAL names no journal of this outbox: set it and OUTBOX_URL as for the "
            "service."
        )
    return path


def _open_link(
    path: Path, holder: dict[str, object]
) -> contextlib.AbstractAsyncContextManager[StoreLink]:
    """A link to the `holder` of the SQLite outbox at `path`. Raises OutboxError."""
    socket = holder.get("socket")
    if not isinstance(socket, str):
        raise OutboxBusyError(
            f"A process (pid {holder.get('pid', 'unknown')}) holds {path} and takes no commands. "
            "Try again when it has ended."
        )
    return open_link(socket, COMMAND_POLICY)


async def _known_starts(settings: Settings) -> dict[str, Known]:
    path = sqlite_path(settings.store_url)
    if path is None or not await asyncio.to_thread(path.exists):
        return {}
    async with _open_file(path) as connection:
        await connection.run(_check_schema)
        return await connection.run(known_starts)


def _alone(path: Path) -> contextlib.AbstractAsyncContextManager[SqliteOutbox]:
    """An outbox that no process serves; with its journal, which belongs to OUTBOX_URL's file.

    What a person removes gets its mark. Raises ConfigurationError.
    """
    opening = functools.partial(
        open_sqlite_outbox, path, max_pending=sys.maxsize, max_pending_per_user=sys.maxsize
    )
    if not os.environ.get("OUTBOX_JOURNAL"):
        return opening()
    settings = Settings.load(os.environ)
    own = sqlite_path(settings.store_url) if settings.journal else None
    if own is None or own.resolve() != path.resolve():
        return opening()
    from inngest_outbox.bootstrap.journal import open_journalled

    return open_journalled(settings, NullRecorder(), opening)


def _check_readable(path: Path) -> None:
    try:
        there = path.is_file()
    except PermissionError:
        there = False
    if not there:
        raise OutboxNotFoundError(
            f"There is no outbox file {path.absolute()} that can be seen from here "
            "(OUTBOX_URL or --url)."
        )
    if not os.access(path, os.R_OK):
        raise OutboxUnavailableError(f"No permission to read {path}.")


def _open_file(path: Path) -> contextlib.AbstractAsyncContextManager[SqliteConnection]:
    """The file for reading; without a -shm when no process writes it and its log is empty.

    A reader that makes one leaves it behind, perhaps as another user than the service's.
    """
    is_at_rest = writer_of(path) is None and WriteAheadLog(path).size == 0
    return open_read_only(path, immutable=is_at_rest)


def _load_names(connection: sqlite3.Connection) -> object:
    found = connection.execute(_SCOPE, (SCOPE, NAMES)).fetchone()
    return msgspec.json.decode(found[0]) if found else None


def _check_schema(connection: sqlite3.Connection) -> None:
    [(tables,)] = connection.execute(_TABLES).fetchall()
    if tables != _TABLE_COUNT:
        raise OutboxNotFoundError("The file is an SQLite database, but not an outbox.")
    applied = {one for (one,) in connection.execute(_APPLIED).fetchall()}
    if schema.missing_of(applied, schema.known_ids()):
        raise OutboxUnavailableError(
            "The outbox's schema is older than this program; start the service or run "
            "`python -m inngest_outbox migrate`."
        )
