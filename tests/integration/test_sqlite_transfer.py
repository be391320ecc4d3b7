"""What a move reads of an SQLite outbox and writes into one, row by row."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from service.config.outbox_url import sqlite_url
from service.errors import OutboxUnavailableError
from service.outbox.event import Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.move.transfer import Metadata
from service.outbox.schema import migrate
from service.outbox.sqlite import notes
from service.outbox.sqlite.lock import sole_writer
from service.outbox.sqlite.transfer import SqliteTransferEvents, open_sqlite_transfer
from service.outbox.sqlite.transfer_metadata import SqliteTransferMetadata, transaction
from tests.support.moved_rows import (
    AUDIT,
    METADATA,
    PLAIN,
    PREFIX,
    ROWS,
    payload,
    payloads,
    row,
)
from tests.support.sqlite_room import START_MS, Room, empty
from tests.support.storage import event


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(empty()) as made:
        made.execute("UPDATE outbox_meta SET inngest_id_prefix = ?", (PREFIX,))
        yield made


@pytest.fixture
def events(connection: sqlite3.Connection) -> SqliteTransferEvents:
    written = SqliteTransferEvents(connection)
    written.write(ROWS, payloads(*ROWS))
    return written


def places(connection: sqlite3.Connection) -> dict[int, str]:
    room = Room.__new__(Room)
    room.connection = connection
    return room.places()


def test_rows_come_back_as_they_were_written(
    connection: sqlite3.Connection, events: SqliteTransferEvents
) -> None:
    assert events.page(0, 9) == ROWS
    assert [one.digest() for one in events.page(0, 9)] == [one.digest() for one in ROWS]
    assert places(connection) == {1: "ready", 2: "sent", 3: "done", 4: "done", 5: "ready"}
    sizes = connection.execute("SELECT seq, payload_bytes FROM outbox_ready").fetchall()
    assert sizes == [(1, len(payload("e-1"))), (5, len(payload("e-5")))]
    dead = connection.execute("SELECT seq, dead FROM outbox_done").fetchall()
    assert dead == [(3, 0), (4, 1)]
    assert connection.execute("SELECT history FROM outbox_ready WHERE seq = 5").fetchall() == [
        (None,)
    ]


def test_pages_follow_each_other_with_their_payloads(events: SqliteTransferEvents) -> None:
    assert [one.seq for one in events.page(1, 2)] == [2, 3]
    assert events.payloads(["e-1", "e-5", "e-9"]) == payloads(ROWS[0], ROWS[4])


def test_a_claimed_row_is_given_as_the_row_that_it_becomes() -> None:
    room = Room()
    room.append(event("a"), event("a"))
    room.claim(1)
    found = SqliteTransferEvents(room.connection).page(0, 9)
    assert [(one.state, one.sends) for one in found] == [("pending", 1), ("pending", 0)]


def test_a_held_row_is_given_and_written_with_its_time() -> None:
    room = Room()
    held = [
        msgspec.structs.replace(event(), meta=Meta(due_at_ms=due)) for due in (1, START_MS + 5000)
    ]
    room.append(*held, event())
    found = SqliteTransferEvents(room.connection).page(0, 9)
    assert [one.due_at_ms for one in found] == [1, START_MS + 5000, 0]
    other = Room()
    SqliteTransferEvents(other.connection).write(found, {one.id: b"{}" for one in found})
    lanes = [(other.row(seq)["due_at_ms"], other.row(seq)["held"]) for seq in (1, 2, 3)]
    assert lanes == [(1, 1), (START_MS + 5000, 1), (0, 0)]
    other.start()
    assert other.take() == [1, 3]
    assert other.at(4999).take() == []
    assert other.at(5000).take() == [2]


def test_the_delay_of_a_retry_is_not_given() -> None:
    room = Room()
    room.append(event())
    batch = room.claim()
    assert batch
    room.put_back(batch, 1, delay=60)
    assert [one.due_at_ms for one in SqliteTransferEvents(room.connection).page(0, 9)] == [0]


def test_all_rows_are_removed_from_every_place(
    connection: sqlite3.Connection, events: SqliteTransferEvents
) -> None:
    events.clear()
    assert places(connection) == {}
    assert events.page(0, 9) == []


def test_a_write_is_whole_or_not_at_all(events: SqliteTransferEvents) -> None:
    with pytest.raises(KeyError):
        events.write([row(8), row(9)], payloads(row(8)))
    assert events.page(0, 9) == ROWS


def test_text_that_another_store_can_not_store_is_replaced(
    connection: sqlite3.Connection, events: SqliteTransferEvents
) -> None:
    note = '[{"at": 1, "note": "a\\u0000b"}]'
    connection.execute("UPDATE outbox_done SET reason = 'r' || char(0), detail = 'd' || char(0)")
    connection.execute("UPDATE outbox_done SET history = ?", (note,))
    [dead] = events.page(3, 1)
    assert (dead.reason, dead.detail, dead.history) == ("r\ufffd", "d\ufffd", ((1, "a\ufffdb"),))


def test_the_id_in_inngest_of_a_row_from_elsewhere_stays(
    connection: sqlite3.Connection, events: SqliteTransferEvents
) -> None:
    connection.execute("UPDATE outbox_meta SET inngest_id_prefix = ?", (b"uvwxyz",))
    connection.execute("UPDATE outbox SET meta = NULL WHERE seq = 2")
    other = InngestIds(b"uvwxyz").ulid(2, PLAIN["accepted_at_ms"])
    assert [one.inngest_id for one in events.page(0, 2)] == [ROWS[0].inngest_id, other]


def test_metadata_comes_back_as_it_was_written(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "wall_now_ms", lambda: 77)
    metadata = SqliteTransferMetadata(connection)
    metadata.write(Metadata([("user", "old", "{}")], [AUDIT[0]], None, ""))
    metadata.note_move("cy", "from elsewhere")
    revision = connection.execute("SELECT revision FROM outbox_delivery").fetchone()
    metadata.write(METADATA)
    assert metadata.read() == METADATA
    assert metadata.moves() == ["from elsewhere"]
    assert connection.execute("SELECT revision FROM outbox_delivery").fetchone() == (
        revision[0] + 1,
    )
    moved = "SELECT at_ms, actor, action FROM outbox_audit WHERE action = 'move'"
    assert connection.execute(moved).fetchall() == [(77, "cy", "move")]
    assert not connection.in_transaction


def test_metadata_are_written_whole_or_not_at_all(connection: sqlite3.Connection) -> None:
    metadata = SqliteTransferMetadata(connection)
    metadata.write(METADATA)
    with pytest.raises(sqlite3.IntegrityError):
        metadata.write(Metadata([], [("act", 1, None, "a", "d", "[]")], None, ""))  # type: ignore[list-item]
    assert metadata.read() == METADATA


@pytest.fixture
def outbox(path: Path) -> Path:
    """An empty outbox in a file."""
    migrate(sqlite_url(path))
    return path


def test_a_transaction_writes_alone_from_its_beginning(outbox: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(outbox, isolation_level=None)) as one,
        contextlib.closing(sqlite3.connect(outbox, isolation_level=None, timeout=0)) as other,
        transaction(one),
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")


def test_the_parts_of_a_file_write_without_a_service(outbox: Path) -> None:
    with open_sqlite_transfer(outbox) as opened, opened.unserved() as is_unserved:
        assert is_unserved
        opened.events.write(ROWS, payloads(*ROWS))
        opened.metadata.write(METADATA)
        opened.metadata.note_move("ada", "from elsewhere")
        with open_sqlite_transfer(outbox) as other, other.unserved() as is_unserved_too:
            assert not is_unserved_too
    with open_sqlite_transfer(outbox) as opened:
        assert len(opened.events.page(0, 9)) == 5
        assert opened.metadata.read() == METADATA
        assert opened.metadata.moves() == ["from elsewhere"]
    with sole_writer(outbox) as lock:
        assert not lock.suspects_log


def test_a_file_that_can_not_be_used_is_told(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with (
        pytest.raises(OutboxUnavailableError, match="can't be used: file is not a database"),
        open_sqlite_transfer(path) as opened,
    ):
        opened.metadata.moves()


@pytest.mark.parametrize(
    ("code", "is_suspected"), [(sqlite3.SQLITE_IOERR_WRITE, True), (sqlite3.SQLITE_FULL, False)]
)
def test_an_error_of_the_disk_makes_the_next_pass_begin_with_a_new_log(
    outbox: Path, monkeypatch: pytest.MonkeyPatch, code: int, *, is_suspected: bool
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    renewed: list[sqlite3.Connection] = []
    renew = "service.outbox.sqlite.wal.WriteAheadLog.renew"
    monkeypatch.setattr(renew, lambda _, connection: renewed.append(connection))
    with (
        pytest.raises(OutboxUnavailableError),
        open_sqlite_transfer(outbox) as opened,
        opened.unserved(),
    ):
        raise error
    assert renewed == []
    with open_sqlite_transfer(outbox) as opened, opened.unserved():
        assert len(renewed) == is_suspected
    with open_sqlite_transfer(outbox) as opened, opened.unserved():
        assert len(renewed) == is_suspected


def test_rows_are_compared_by_all_but_their_number() -> None:
    assert msgspec.structs.replace(ROWS[0], seq=99).digest() == ROWS[0].digest()
    assert msgspec.structs.replace(ROWS[0], sends=4).digest() != ROWS[0].digest()
