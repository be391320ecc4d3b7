"""Bugs that are planted on purpose, so that the trial of power cuts is seen to find them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from service.outbox.clock import wall_now_ms
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Receipt
from service.outbox.sqlite import commit
from service.outbox.sqlite.file import backup, connection, disk, log, schema, transfer
from service.outbox.sqlite.intake import SqliteIntake
from tests.support.simulation.planted_confirmation import BUGS as CONFIRMATION
from tests.support.simulation.planted_delivery import BUGS as DELIVERY
from tests.support.simulation.planted_intake import BUGS as INTAKE


def _commits_not_synced() -> None:
    transact = commit.SqliteCommits._transact

    def unsynced(
        self: commit.SqliteCommits,
        connection: sqlite3.Connection,
        group: commit.Group,
        mode: str | None,
    ) -> commit.Results:
        return transact(self, connection, group, "PRAGMA synchronous = NORMAL")

    commit.SqliteCommits._transact = unsynced  # type: ignore[method-assign]


def _answer_before_the_commit() -> None:
    append_all = SqliteIntake.append_all

    async def answering(
        self: SqliteIntake, events: Sequence[Any], keys: Any, **named: Any
    ) -> Sequence[Receipt]:
        late = asyncio.create_task(append_all(self, events, keys, **named))
        late.add_done_callback(lambda done: done.cancelled() or done.exception())
        ids = InngestIds(bytes(6))
        return [Receipt(event.id, 0, wall_now_ms(), ids) for event in events]

    SqliteIntake.append_all = answering  # type: ignore[method-assign]


def _log_with_a_hole_is_used() -> None:
    log.WriteAheadLog.make_durable = lambda self: None  # type: ignore[method-assign]
    log.WriteAheadLog.renew = lambda self, connection: None  # type: ignore[method-assign]


def _unsynced_os(what: Callable[[int], bool]) -> Any:
    """The module `os` whose fsync does nothing for files of this kind of mode."""

    def fsync(descriptor: int) -> None:
        if not what(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)

    return types.SimpleNamespace(**{**vars(os), "fsync": fsync})


def _new_folders_not_synced() -> None:
    mock.patch.object(disk, "os", _unsynced_os(stat.S_ISDIR)).start()


def _backup_without_its_name() -> None:
    mock.patch.object(backup, "os", _unsynced_os(stat.S_ISDIR)).start()


def _backup_without_its_content() -> None:
    mock.patch.object(backup, "os", _unsynced_os(stat.S_ISREG)).start()


def _move_not_synced() -> None:
    @contextlib.contextmanager
    def unsynced(path: Path) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            yield connection

    mock.patch.object(transfer, "open_alone", unsynced).start()


def _migration_in_steps() -> None:
    def apply(connection: sqlite3.Connection, migrations: Sequence[tuple[str, str]]) -> None:
        connection.executescript(schema._MAKE_RECORD)
        for migration_id, text in migrations:
            connection.executescript(text)
            connection.execute(schema._RECORD, (migration_id, wall_now_ms()))

    schema._apply = apply


def _sqlite_copies_the_log() -> None:
    """Its automatic checkpoint is on again, as often as the service's own would be."""
    pragmas = connection._WRITER_PRAGMAS
    connection._WRITER_PRAGMAS = pragmas.replace("autocheckpoint = 0", "autocheckpoint = 40")
    log.WriteAheadLog.look = lambda self: False  # type: ignore[method-assign]


def _log_is_copied_after_a_failed_sync() -> None:
    def checkpoint(self: log.WriteAheadLog, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(OSError):
            log._sync(self._attached())
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._wanted_frames += log._AGAIN_FRAMES

    log.WriteAheadLog.checkpoint = checkpoint  # type: ignore[method-assign]


def _a_killed_log_is_trusted() -> None:
    log.WriteAheadLog.make_durable = lambda self: None  # type: ignore[method-assign]


def _a_log_is_kept_after_a_fault() -> None:
    log.WriteAheadLog.renew = lambda self, connection: None  # type: ignore[method-assign]


# The bugs that show where a device fails once.
DEVICE_BUGS: dict[str, Callable[[], None]] = {
    "SQLite copies the log by itself": _sqlite_copies_the_log,
    "a copy does not hear of a failed sync": _log_is_copied_after_a_failed_sync,
    "a killed process' log is trusted": _a_killed_log_is_trusted,
    "a log is kept after a fault": _a_log_is_kept_after_a_fault,
}

# The bug, by its name, and the load that it shows in.
PLANTED: dict[str, tuple[str, Callable[[], None]]] = {
    "commits are not synced": ("posts", _commits_not_synced),
    "answers come before the commit": ("posts", _answer_before_the_commit),
    "a log with a hole is used": ("posts", _log_with_a_hole_is_used),
    "new folders are not synced": ("posts", _new_folders_not_synced),
    "a move is not synced": ("move", _move_not_synced),
    "a migration commits in steps": ("migration", _migration_in_steps),
    "the name of a backup is not synced": ("backup", _backup_without_its_name),
    "a backup is not synced": ("backup", _backup_without_its_content),
    "the service answers before the commit": ("service", INTAKE["answer before the commit"]),
    "a confirmation is not awaited": ("service", CONFIRMATION["take an answer for storage"]),
    "sends carry no seed": ("service", DELIVERY["send without a seed"]),
}
# One of each kind, cheap to find.
FEW = (
    "commits are not synced",
    "answers come before the commit",
    "new folders are not synced",
    "a move is not synced",
)
