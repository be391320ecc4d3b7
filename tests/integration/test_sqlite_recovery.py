"""What a start on an SQLite outbox does once: migrate, free what was claimed, count what waits."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service.errors import OutboxMoveError, OutboxUnavailableError
from service.outbox.sqlite import recovery
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.quota import BytesCount
from service.outbox.sqlite.recovery import Recovery
from service.outbox.sqlite.salvage import Salvage
from tests.support.sqlite_room import MIGRATIONS, Inline, Room
from tests.support.storage import event
from tests.support.work_kinds import sqlite_error


class Start:
    """A start on a room that another process has left."""

    def __init__(self, path: Path) -> None:
        self.room, self.memory, self.bytes = Room(), Memory(), BytesCount()
        for owner in ("ada", "bob", "bob"):
            self.room.append(event(owner))
        self.room.claim(2, lease_seconds=600.0)
        self.room.counts = counts = type(self.room.counts)(
            self.room.counts._limits, self.room.counts._fair_share
        )
        self.room.claims.held = {}
        parts = (self.room.claims, self.memory, counts, self.bytes, self.room.damage)
        self.recovery = Recovery(path, *parts)

    async def run(self, times: int = 1) -> None:
        for _ in range(times):
            await self.recovery.run(Inline(self.room))  # type: ignore[arg-type]

    def moved(self, *details: str) -> None:
        for action, detail in (("pause", "left"), *(("move", detail) for detail in details)):
            self.room.connection.execute(
                "INSERT INTO outbox_audit (at_ms, actor, action, detail) VALUES (0, 'a', ?, ?)",
                (action, detail),
            )


@pytest.fixture
def start(path: Path) -> Start:
    return Start(path)


async def test_a_start_frees_and_counts_what_waits_and_knows_the_record_and_the_ids(
    start: Start,
) -> None:
    assert start.recovery.claimed == 0
    await start.run()
    assert start.recovery.claimed == 2
    assert start.room.places() == {1: "ready", 2: "ready", 3: "ready"}
    assert start.room.counts._pending == {"ada": 1, "bob": 2}
    assert start.memory.known_record().state == "healthy"
    [(prefix,)] = start.room.connection.execute("SELECT inngest_id_prefix FROM outbox_meta")
    assert start.memory.known_ids().prefix == prefix
    assert start.bytes.newest == 3
    assert not start.room.connection.in_transaction


async def test_it_is_done_once(start: Start) -> None:
    await start.run(3)
    assert start.room.counts._pending == {"ada": 1, "bob": 2}
    assert start.room.take() == [1, 2, 3]
    await start.run()
    assert set(start.room.places().values()) == {"claims"}


@pytest.mark.parametrize(
    ("moves", "is_left"),
    [((), False), (("left for x",), True), (("came",), False), (("left for x", "came"), False)],
)
async def test_an_outbox_that_was_moved_away_is_not_started(
    start: Start, moves: tuple[str, ...], *, is_left: bool
) -> None:
    start.moved(*moves)
    if not is_left:
        await start.run()
        return
    with pytest.raises(OutboxMoveError):
        await start.run()
    assert start.room.places()[1] == "claims"


async def test_what_fails_leaves_no_trace_and_is_repeated(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover = start.room.claims.recover

    def half(connection: sqlite3.Connection) -> int:
        recover(connection)
        raise sqlite_error("SQLITE_FULL")

    with monkeypatch.context() as patch:
        patch.setattr(start.room.claims, "recover", half)
        with pytest.raises(sqlite3.OperationalError):
            await start.run()
    assert not start.room.connection.in_transaction
    assert start.room.places() == {1: "claims", 2: "claims", 3: "ready"}
    await start.run()
    assert start.recovery.claimed == 2


async def test_another_writer_is_kept_out_while_it_frees_rows(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    start.room.connection.set_trace_callback(statements.append)
    await start.run()
    begun = [one for one in statements if one.startswith(("BEGIN", "COMMIT"))]
    assert begun == ["BEGIN IMMEDIATE", "COMMIT"]


@pytest.mark.parametrize(
    ("name", "is_counted"), [("SQLITE_CORRUPT", True), ("SQLITE_IOERR", False)]
)
async def test_the_rows_of_a_damaged_file_are_counted_without_their_owners(
    start: Start, name: str, *, is_counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(connection: sqlite3.Connection) -> Any:
        raise sqlite_error(name)

    monkeypatch.setattr(recovery, "count_pending", fails)
    if is_counted:
        await start.run()
        assert start.room.counts.total == 3
    else:
        with pytest.raises(sqlite3.OperationalError):
            await start.run()
    assert start.room.damage.is_found is is_counted


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_waiting_row_without_its_event_is_damage(start: Start, *, is_lost: bool) -> None:
    if is_lost:
        start.room.connection.execute("DELETE FROM outbox WHERE seq = 2")
    await start.run()
    assert start.room.damage.is_found is is_lost


@pytest.mark.parametrize(("name", "is_damage"), [("SQLITE_CORRUPT", True), ("SQLITE_BUSY", False)])
async def test_a_look_for_missing_events_that_fails_ends_no_start(
    start: Start, name: str, *, is_damage: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(connection: sqlite3.Connection) -> Any:
        raise sqlite_error(name)

    monkeypatch.setattr(recovery, "count_missing", fails)
    await start.run()
    assert start.recovery.claimed == 2
    assert start.room.damage.is_found is is_damage


async def test_migrations_are_applied_until_they_succeed_and_then_not_again(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def migrate(url: str) -> None:
        asked.append(url)
        if len(asked) == 1:
            raise OutboxUnavailableError

    monkeypatch.setattr(recovery, "migrate", migrate)
    with pytest.raises(OutboxUnavailableError):
        await start.recovery.migrate()
    for _ in range(3):
        await start.recovery.migrate()
    assert asked == [f"sqlite:///{path}"] * 2


def stored(path: Path) -> sqlite3.Connection:
    """An outbox in a file, without a log beside it."""
    made = sqlite3.connect(path, isolation_level=None)
    for migration in sorted(MIGRATIONS.glob("*.sql")):
        made.executescript(migration.read_text())
    return made


def spoil(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


async def test_the_ids_are_read_from_the_file_alone(start: Start, path: Path) -> None:
    with contextlib.closing(stored(path)) as made:
        [(prefix,)] = made.execute("SELECT inngest_id_prefix FROM outbox_meta").fetchall()
    await start.recovery.read_at_rest()
    assert start.memory.known_ids().prefix == prefix
    spoil(path)
    with pytest.raises(OutboxUnavailableError):
        await start.recovery.read_at_rest()


def test_a_doubted_row_is_read_by_itself_and_only_a_bad_one_is_unreadable(path: Path) -> None:
    room = Room()
    salvage = Salvage(path, room.damage)
    with contextlib.closing(stored(path)) as made:
        for seq, owner in enumerate(("'ada'", "CAST(x'ff' AS TEXT)", "'kim'", "'zoe'"), 1):
            made.execute(
                "INSERT INTO outbox (seq, event_id, name, owner, user_id, accepted_at_ms, payload)"
                f" VALUES (?, ?, 'n', {owner}, 'u', 0, x'00')",
                (seq, f"id-{seq}"),
            )
        made.execute("UPDATE outbox SET name = CAST(x'ff' AS TEXT) WHERE seq IN (3, 4)")
    salvage.doubt([1, 2, 3], ValueError("no fault of the rows"))
    assert salvage.unreadable([1, 2, 3]) == {}
    salvage.doubt([1, 2, 3], UnicodeDecodeError("utf-8", b"", 0, 1, ""))
    assert not room.damage.is_found
    assert salvage.unreadable([9]) == {}
    assert salvage.unreadable([1, 2, 3, 4]) == {2: None, 3: "kim"}
    assert salvage.unreadable([1, 2, 3, 4]) == {}
    salvage.doubt([4], sqlite_error("SQLITE_CORRUPT"))
    assert room.damage.is_found
    assert salvage.unreadable([4]) == {4: "zoe"}


def test_an_error_that_is_not_the_rows_makes_none_unreadable(path: Path) -> None:
    salvage = Salvage(path, Room().damage)
    with contextlib.closing(stored(path)) as made:
        made.executescript("DROP VIEW outbox_rows; DROP TABLE outbox")
    salvage.doubt([1], sqlite_error("SQLITE_CORRUPT"))
    with pytest.raises(sqlite3.OperationalError):
        salvage.unreadable([1])
