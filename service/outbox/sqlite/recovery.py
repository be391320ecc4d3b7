"""What a start does once the file can be written: migrations, and freeing claimed rows."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from service.config.outbox_url import sqlite_url
from service.errors import OutboxMoveError
from service.outbox.inngest_id import InngestIds
from service.outbox.model import DeliveryRecord
from service.outbox.schema import migrate
from service.outbox.sqlite.claims import SqliteClaims
from service.outbox.sqlite.confirmations import read_ids
from service.outbox.sqlite.connection import SqliteConnection
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.delivery import read_delivery
from service.outbox.sqlite.faults import is_damage, unavailable_if_sqlite_fails
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.missing import count_missing, missing_events
from service.outbox.sqlite.quota import BytesCount, StoredCounts, count_pending, count_ready

LAST_MOVE = "SELECT detail FROM outbox_audit WHERE action = 'move' ORDER BY id DESC LIMIT 1"

_UNKNOWN = ""


class Recovered(NamedTuple):
    """What a start found: claimed rows, the delivery record, pending rows by owner."""

    claimed: int
    delivery: DeliveryRecord
    pending: dict[str, int]
    ids: InngestIds


class Recovery:
    """Runs once, before anything else is written."""

    def __init__(
        self,
        path: Path,
        claims: SqliteClaims,
        memory: Memory,
        counts: StoredCounts,
        bytes_count: BytesCount,
        damage: Damage,
    ) -> None:
        self._path = path
        self._claims = claims
        self._memory = memory
        self._counts = counts
        self._bytes_count = bytes_count
        self._damage = damage
        self._is_migrated = False
        self._is_done = False
        self.claimed = 0

    async def migrate(self) -> None:
        """Apply missing migrations. Raises SchemaTooNewError and OutboxUnavailableError."""
        if not self._is_migrated:
            await asyncio.to_thread(migrate, sqlite_url(self._path))
            self._is_migrated = True

    async def run(self, connection: SqliteConnection) -> None:
        """Free claimed rows and count pending ones.

        Raises OutboxUnavailableError, and OutboxMoveError when the outbox was moved elsewhere.
        """
        if self._is_done:
            return
        if await connection.run(_was_left):
            raise OutboxMoveError("This outbox was moved. Set OUTBOX_URL to its new address.")
        found = await connection.run(self._recover)
        self.claimed = found.claimed
        self._memory.record, self._memory.ids = found.delivery, found.ids
        self._counts.returned(found.pending)
        self._is_done = True

    async def read_at_rest(self) -> None:
        """Read what the other parts need to start, on a disk that takes no new file.

        Reads the database without its log. Raises OutboxUnavailableError.
        """
        self._memory.ids = await asyncio.to_thread(_ids_at_rest, self._path)

    def _recover(self, connection: sqlite3.Connection) -> Recovered:
        connection.execute("BEGIN IMMEDIATE")
        try:
            claimed = self._claims.recover(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._bytes_count.begin(connection)
        # Outside the transaction: SQLite commits nothing after a damaged page.
        pending = self._count_pending(connection)
        self._note_missing(connection)
        return Recovered(claimed, read_delivery(connection), pending, read_ids(connection))

    def _count_pending(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Pending rows by owner.

        A damaged file takes no events, so there only their number counts.
        """
        try:
            return count_pending(connection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._damage.note(error)
            return {_UNKNOWN: count_ready(connection)}

    def _note_missing(self, connection: sqlite3.Connection) -> None:
        """Remember damage when waiting rows name events that are missing, or can't be read."""
        try:
            count = count_missing(connection)
        except sqlite3.DatabaseError as error:
            self._damage.note(error)
        else:
            if count:
                self._damage.note(missing_events(count))


def _ids_at_rest(path: Path) -> InngestIds:
    with unavailable_if_sqlite_fails():
        address = f"file:{quote(str(path))}?immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            return read_ids(connection)


def _was_left(connection: sqlite3.Connection) -> bool:
    moves = connection.execute(LAST_MOVE).fetchall()
    return bool(moves) and moves[0][0].startswith("left")
