"""The start of the process that writes the file: checks, migrations, and freeing claimed rows.

The invariant: nothing is written to a file whose log is missing or another's, and no claim is freed
in a file that is known to be damaged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import structlog

from inngest_outbox.config.outbox_url import sqlite_url
from inngest_outbox.errors import OutboxMoveError, OutboxUnavailableError
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.appends import next_seq
from inngest_outbox.outbox.sqlite.claims import SqliteClaims
from inngest_outbox.outbox.sqlite.file.connection import SQL, SqliteConnection, connect_read_only
from inngest_outbox.outbox.sqlite.file.disk import beside
from inngest_outbox.outbox.sqlite.file.faults import Corruption, unavailable_if_sqlite_fails
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog
from inngest_outbox.outbox.sqlite.records import read_delivery
from inngest_outbox.outbox.sqlite.state import BytesCount, CachedState, StoredCounts

_CHECK_SECONDS = 5.0
_CHECK_STEPS = 1000
_TABLES = (
    *("outbox_meta", "outbox_delivery", "outbox_prefixes", "outbox_settings", "outbox_audit"),
    *("outbox_claims", "outbox_ready", "outbox_sent", "outbox_done", "outbox"),
)
_MISSING = (
    "{file} is without its log {log}: events that were accepted last are in it. Put it back. Where "
    "it is gone for good, or another program has opened the file since, start with "
    "`serve --accept-loss`."
)
_FOREIGN = (
    "The log {log} belongs to another file than {file}. Put back the right one. Where there is "
    "none, `serve --accept-loss` sets this one aside and goes on without it."
)

log = structlog.get_logger(__name__)


class Recovery:
    """Runs once, before anything else is written.

    `accepts_loss` starts a file whose log is missing, or another's.
    """

    def __init__(
        self,
        path: Path,
        claims: SqliteClaims,
        state: CachedState,
        counts: StoredCounts,
        bytes_count: BytesCount,
        corruption: Corruption,
        *,
        accepts_loss: bool,
    ) -> None:
        self._path = path
        self._claims = claims
        self._state = state
        self._counts = counts
        self._bytes_count = bytes_count
        self._corruption = corruption
        self._accepts_loss = accepts_loss
        self._is_migrated = False
        self._is_done = False

    async def migrate(self) -> None:
        """Apply missing migrations, to a file that has its own log.

        Raises SchemaTooNewError, SchemaTooOldError and OutboxUnavailableError.
        """
        if self._is_migrated:
            return
        try:
            await asyncio.to_thread(check_log, self._path, accepts_loss=self._accepts_loss)
            await asyncio.to_thread(migrate, sqlite_url(self._path))
        except OutboxUnavailableError as error:
            self._corruption.note(error)
            raise
        self._is_migrated = True

    async def run(self, connection: SqliteConnection) -> None:
        """Check the file, free claimed rows and count pending ones.

        Raises OutboxUnavailableError, and OutboxMoveError when the outbox was moved elsewhere.
        """
        if self._is_done:
            return
        if await connection.run(_was_left):
            raise OutboxMoveError("This outbox was moved. Set OUTBOX_URL to its new address.")
        if damage := await connection.run(find_damage, _CHECK_SECONDS):
            self._corruption.found(damage)
        self._corruption.refuse()
        pending = await connection.run(self._recover)
        self._counts.returned(pending)
        self._is_done = True

    async def read_only(self, *, immutable: bool) -> None:
        """Read what the other parts need to start, where the file can't be written.

        `immutable` reads the database without its log, on a disk that takes no new file. Raises
        OutboxUnavailableError.
        """
        await asyncio.to_thread(self._read, immutable=immutable)

    def _read(self, *, immutable: bool) -> None:
        with (
            unavailable_if_sqlite_fails(),
            connect_read_only(self._path, immutable=immutable) as connection,
        ):
            self._state.ids = read_ids(connection)
            # A process that was killed may have written rows which it could not sync.
            self._state.is_on_disk = not WriteAheadLog(self._path).has_content
            if not immutable:
                self._state.record = read_delivery(connection)

    def _recover(self, connection: sqlite3.Connection) -> dict[str, int]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._claims.recover(connection)
            self._begin(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._bytes_count.begin(connection)
        self._state.ids, self._state.record = read_ids(connection), read_delivery(connection)
        self._state.is_on_disk = True
        return dict(connection.execute(SQL["PENDING_BY_OWNER"]).fetchall())

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Note in the file that a process begins: its log, its numbers, its time."""
        first = self._state.first_seq = next_seq(connection)
        connection.execute(SQL["TAKE_PREFIX"], {"next_seq": first})
        connection.execute(SQL["DROP_PREFIXES"], {"next_seq": first})
        self._state.read_ages(connection)
        self._state.keep_ages(connection, is_start=True)
        connection.execute(SQL["EXPECT_LOG"], {"expected": 1})


def check_log(path: Path, *, accepts_loss: bool) -> None:
    """Raise OutboxUnavailableError where the file's log is missing, or is that of another file.

    With `accepts_loss` another file's log is set aside instead.
    """
    if not path.exists() or not path.stat().st_size:
        return
    of_file = _identity(path, immutable=True)
    if of_file is None:
        return  # no outbox, or damaged: others say so
    file_id, expects_log = of_file
    place = beside(path, "-wal")
    names = {"file": path, "log": place.name}
    if not place.exists():
        if expects_log and not accepts_loss:
            raise OutboxUnavailableError(_MISSING.format(**names))
        return
    with_log = _identity(path, immutable=False) if WriteAheadLog(path).has_content else None
    if with_log and with_log[0] != file_id:
        if not accepts_loss:
            raise OutboxUnavailableError(_FOREIGN.format(**names))
        place.replace(beside(path, "-wal.set-aside"))
        log.warning("log_set_aside", log=str(place), now=f"{place}.set-aside")


def _identity(path: Path, *, immutable: bool) -> tuple[bytes, bool] | None:
    try:
        with connect_read_only(path, immutable=immutable) as connection:
            [(file_id, expects_log)] = connection.execute(SQL["FILE_IDENTITY"]).fetchall()
            return bytes(file_id), bool(expects_log)
    except (sqlite3.Error, ValueError, TypeError):
        return None  # half copied from its log, a page may lack what its schema says


def find_damage(connection: sqlite3.Connection, seconds: float) -> str | None:
    """The damage of the file in words, None where nothing was found in so many seconds.

    Each event must have exactly one state, and each page must be readable and in order.
    """
    ends_at = time.monotonic() + seconds
    checked: list[str] = []
    connection.set_progress_handler(lambda: time.monotonic() > ends_at, _CHECK_STEPS)
    try:
        [(stateless, surplus)] = connection.execute(SQL["STATELESS"]).fetchall()
        if stateless or surplus:
            return (
                f"events without a state: {stateless:,}; states beyond those of events: {surplus:,}"
            )
        for table in _TABLES:
            [(said,), *_] = connection.execute(f"PRAGMA quick_check({table})").fetchall()
            if said != "ok":
                return str(said)
            checked.append(table)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
            raise
        log.warning("file_check_incomplete", seconds=seconds, checked=checked)
    finally:
        connection.set_progress_handler(None, 0)
    return None


def read_ids(connection: sqlite3.Connection) -> InngestIds:
    """The random bytes of the ULIDs of this outbox's rows."""
    *earlier, (since, prefix) = connection.execute(SQL["PREFIXES"]).fetchall()
    return InngestIds(bytes(prefix), since, tuple((seq, bytes(one)) for seq, one in earlier[::-1]))


def _was_left(connection: sqlite3.Connection) -> bool:
    moves = connection.execute(SQL["LAST_MOVE"]).fetchall()
    return bool(moves) and moves[0][0].startswith("left")
