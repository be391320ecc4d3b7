"""What a recovery copies of a file of which rows can't be read."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.config.outbox_url import sqlite_url
from service.errors import OutboxBusyError, OutboxUnavailableError
from service.outbox.schema import migrate
from service.outbox.sqlite import recover as module
from service.outbox.sqlite.lock import sole_writer
from service.outbox.sqlite.missing import MISSING_BETWEEN
from service.outbox.sqlite.recover import (
    EVENTS_BETWEEN,
    HELD_ALONE,
    RecoveredFile,
    _Copy,
    _last_seq,
    recover,
)
from service.outbox.sqlite.transfer import SqliteTransferEvents, open_sqlite_transfer
from service.outbox.sqlite.transfer_metadata import SqliteTransferMetadata
from tests.support.open_files import open_files
from tests.support.sqlite_room import Room, empty
from tests.support.storage import event


class Spoiled:
    """The rows of a connection; `states`, `delays` and `events` are those that can't be read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.states: set[int] = set()
        self.delays: set[int] = set()
        self.events: set[int] = set()
        self.fault: Exception = sqlite3.DatabaseError("database disk image is malformed")
        self.pages: list[tuple[int, int]] = []

    def execute(self, statement: str, values: Mapping[str, int]) -> sqlite3.Cursor:
        if statement == MISSING_BETWEEN:
            return self._connection.execute(statement, values)
        bad, wanted = self.events, range(values.get("seq", 0), values.get("seq", 0) + 1)
        if statement == EVENTS_BETWEEN:
            self.pages.append((values["after"], values["upto"]))
            bad, wanted = bad | self.states, range(values["after"] + 1, values["upto"] + 1)
        elif statement == HELD_ALONE:
            bad = bad | self.delays
        if bad.intersection(wanted):
            raise self.fault
        return self._connection.execute(statement, values)


class Desk:
    """A copy from a room of 8 rows, of which the second is dead, to an empty outbox."""

    def __init__(self) -> None:
        self.room, self.to = Room(), empty()
        for _ in range(8):
            self.room.append(event("o"))
        self.room.connection.execute("UPDATE outbox_ready SET attempts = 3, sends = 4")
        self.source = Spoiled(self.room.connection)
        self.target = SqliteTransferEvents(self.to)
        self.copy = _Copy(self.source, self.target)  # type: ignore[arg-type]

    def counted(self) -> tuple[int, int, int]:
        return self.copy.rows, self.copy.without_state, self.copy.lost


@pytest.fixture
def desk() -> Iterator[Desk]:
    one = Desk()
    with contextlib.closing(one.to):
        yield one


def test_a_page_that_can_be_read_is_copied_as_it_is(desk: Desk) -> None:
    desk.copy.copy(2, 6)
    wanted = SqliteTransferEvents(desk.room.connection).page(2, 4)
    found = desk.target.page(0, 9)
    assert [one.digest() for one in found] == [one.digest() for one in wanted]
    ids = [one.id for one in found]
    assert desk.target.payloads(ids) == SqliteTransferEvents(desk.room.connection).payloads(ids)
    assert desk.counted() == (4, 0, 0)
    assert desk.source.pages == [(2, 6)]


@pytest.mark.parametrize("fault", [sqlite3.DatabaseError("a page"), ValueError("a number")])
def test_a_page_is_divided_until_the_unreadable_rows_are_found(
    desk: Desk, fault: Exception
) -> None:
    desk.source.states, desk.source.events, desk.source.fault = {3}, {6}, fault
    desk.copy.copy(0, 8)
    assert desk.counted() == (7, 1, 1)
    found = {one.seq: one for one in SqliteTransferEvents(desk.room.connection).page(0, 9)}
    copied = {one.id: one for one in desk.target.page(0, 9)}
    assert found[6].id not in copied
    alone = copied[found[3].id]
    assert (alone.state, alone.attempts, alone.sends, alone.isolated) == ("pending", 0, 1, False)
    assert alone.first_sent_at_ms == alone.accepted_at_ms == found[3].accepted_at_ms
    assert alone.inngest_id == found[3].inngest_id
    assert alone.payload_sha256 == found[3].payload_sha256
    assert alone.history == ()
    whole = [0, 4], [4, 8], [2, 4], [2, 3], [3, 4], [0, 2], [4, 6], [4, 5], [5, 6], [6, 8]
    assert sorted(desk.source.pages) == sorted([(0, 8), *((one[0], one[1]) for one in whole)])


def hold(desk: Desk, *seqs: int) -> None:
    for seq in seqs:
        statement = "UPDATE outbox_ready SET due_at_ms = ?, held = 1 WHERE seq = ?"
        desk.room.connection.execute(statement, (10 * seq, seq))


def test_a_held_row_of_a_page_stays_held(desk: Desk) -> None:
    hold(desk, 2, 4)
    desk.copy.copy(0, 4)
    assert [one.due_at_ms for one in desk.target.page(0, 9)] == [0, 20, 0, 40]


@pytest.mark.parametrize("fault", [sqlite3.DatabaseError("a page"), ValueError("a number")])
def test_a_held_row_without_its_state_stays_held_where_its_time_can_be_read(
    desk: Desk, fault: Exception
) -> None:
    hold(desk, 2, 3)
    retried = "UPDATE outbox_ready SET due_at_ms = 7 WHERE seq = 4"
    desk.room.connection.execute(retried)
    desk.source.states, desk.source.delays, desk.source.fault = {1, 2, 3, 4}, {3}, fault
    desk.copy.copy(0, 4)
    assert desk.counted() == (4, 4, 0)
    assert [one.due_at_ms for one in desk.target.page(0, 9)] == [0, 20, 0, 0]


def test_a_row_that_is_not_there_is_none_that_was_lost(desk: Desk) -> None:
    for table in ("outbox", "outbox_ready"):
        desk.room.connection.execute(f"DELETE FROM {table} WHERE seq = 3")
    desk.source.states = {3}
    desk.copy.copy(2, 3)
    assert desk.counted() == (0, 0, 0)


def test_a_row_whose_event_is_gone_was_lost(desk: Desk) -> None:
    desk.room.connection.execute("DELETE FROM outbox WHERE seq IN (3, 6)")
    desk.copy.copy(0, 8)
    assert desk.counted() == (6, 0, 2)


def test_the_last_row_is_that_of_the_place_that_reaches_farthest() -> None:
    room = Room()
    assert _last_seq(room.connection) == 0
    room.append(event(), event())
    assert _last_seq(room.connection) == 2
    room.connection.execute("DELETE FROM outbox")
    assert _last_seq(room.connection) == 2
    room.connection.execute("DROP TABLE outbox_ready")
    assert _last_seq(room.connection) == 0


def test_a_file_of_which_nothing_can_be_read_is_told() -> None:
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as nothing,
        pytest.raises(OutboxUnavailableError, match="Nothing in the file can be read"),
    ):
        _last_seq(nothing)


@pytest.fixture
def source(path: Path) -> Path:
    """A file with five rows and a pause."""
    migrate(sqlite_url(path))
    room = Room()
    room.append(*(event("o") for _ in range(5)))
    rows = SqliteTransferEvents(room.connection)
    page = rows.page(0, 9)
    with open_sqlite_transfer(path) as opened:
        opened.events.write(page, rows.payloads([one.id for one in page]))
        found = opened.metadata.read()
        opened.metadata.write(found._replace(paused_by="ada", pause_reason="why"))
    return path


def recovered(source: Path, target: Path) -> tuple[RecoveredFile, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    return recover(source, target, lambda done, total: told.append((done, total))), told


def test_a_file_is_recovered_page_by_page_to_a_new_one(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    target = source.with_name("new.db")
    before = source.read_bytes()
    assert recovered(source, target) == (RecoveredFile(5, 0, 0), [(2, 5), (4, 5), (5, 5)])
    assert source.read_bytes() == before
    with open_sqlite_transfer(target) as opened:
        assert [one.seq for one in opened.events.page(0, 9)] == [1, 2, 3, 4, 5]
        assert opened.metadata.read().paused_by == "ada"
    assert not open_files(source.parent)


def test_a_page_has_500_rows(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "_last_seq", lambda _: 1001)
    monkeypatch.setattr(_Copy, "copy", lambda _, after, upto: pages.append((after, upto)))
    recover(source, source.with_name("new.db"), lambda *_: None)
    assert pages == [(0, 500), (500, 1000), (1000, 1001)]


def test_text_that_is_none_is_read_as_far_as_it_is(source: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as file, file:
        file.execute("UPDATE outbox SET user_id = CAST(x'61ff' AS TEXT) WHERE seq = 2")
    target = source.with_name("new.db")
    assert recovered(source, target)[0] == RecoveredFile(5, 0, 0)
    with open_sqlite_transfer(target) as opened:
        assert opened.events.page(1, 1)[0].user_id == "a\ufffd"


def test_a_held_event_of_a_file_is_held_in_the_new_one(source: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as file, file:
        file.execute("UPDATE outbox_ready SET due_at_ms = 9, held = 1 WHERE seq = 2")
    target = source.with_name("new.db")
    assert recovered(source, target)[0] == RecoveredFile(5, 0, 0)
    with open_sqlite_transfer(target) as opened:
        assert [one.due_at_ms for one in opened.events.page(0, 9)] == [0, 9, 0, 0, 0]


@pytest.mark.parametrize("fault", [sqlite3.DatabaseError("a page"), ValueError("a number")])
def test_metadata_that_can_not_be_read_are_left_out(
    source: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(_: Any) -> None:
        raise fault

    monkeypatch.setattr(SqliteTransferMetadata, "read", fail)
    assert recovered(source, source.with_name("new.db"))[0] == RecoveredFile(5, 0, 0)


def test_nothing_is_replaced_and_no_served_file_is_read(source: Path) -> None:
    target = source.with_name("there.db")
    target.write_text("precious")
    with pytest.raises(OutboxUnavailableError, match="exists already"):
        recovered(source, target)
    assert target.read_text() == "precious"
    with sole_writer(source, socket="s"), pytest.raises(OutboxBusyError):
        recovered(source, source.with_name("new.db"))
    assert not source.with_name("new.db").exists()


def test_an_error_of_the_file_is_one_of_the_outbox(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> int:
        raise sqlite3.DatabaseError("a page")

    monkeypatch.setattr(module, "_last_seq", fail)
    with pytest.raises(OutboxUnavailableError):
        recovered(source, source.with_name("new.db"))


def test_a_name_with_special_characters_is_taken_as_it_is(source: Path) -> None:
    other = source.rename(source.with_name("a?b%20c.db"))
    assert recovered(other, source.with_name("new.db"))[0] == RecoveredFile(5, 0, 0)
