"""A move keeps services away from a PostgreSQL outbox, and the database refuses other writers."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres.notify import HOLD_SERVED_LOCK, SERVED_LOCK_NUMBER
from service.outbox.postgres.seal import SEALED, PostgresSeal
from service.outbox.postgres.transfer import PostgresTransfer, open_postgres_transfer
from tests.support.moved_rows import METADATA, ROWS, payloads
from tests.support.postgres_room import Room
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer

# Services of every version hold the same lock.
OUTB = int.from_bytes(b"outb")
SERVES = {"class": OUTB}
LOCK = f"SELECT pg_advisory_xact_lock_shared(%(class)s, ({SERVED_LOCK_NUMBER} + %(more)s)::integer)"


@pytest.fixture
def seal(room: Room) -> PostgresSeal:
    return PostgresSeal(room.connection)


def refused(room: Room, statement: str) -> bool:
    """Whether the database refuses this statement because of the seal."""
    try:
        with room.connection.transaction():
            room.run(statement)
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return True
    return False


def is_sealed(room: Room) -> bool:
    """Whether all tables are; never only some."""
    [found] = {refused(room, f"DELETE FROM {table} WHERE false") for table in SEALED}
    return found


def test_a_sealed_outbox_refuses_every_writer_but_a_move(room: Room, seal: PostgresSeal) -> None:
    assert not is_sealed(room)
    for _ in range(2):
        seal.put_on()
        assert is_sealed(room)
    for table in SEALED:
        column = "seqs" if table == "outbox_claims" else "seq"
        assert refused(room, f"UPDATE {table} SET {column} = {column}")
        assert refused(room, f"INSERT INTO {table} DEFAULT VALUES")
    assert not refused(room, "UPDATE outbox_meta SET heavy_rows = 1")
    with room.connection.transaction(force_rollback=True):
        room.run("SET LOCAL outbox.moving = 'yes'")
        assert not is_sealed(room)
    for _ in range(2):
        seal.take_off()
        assert not is_sealed(room)


def test_a_seal_waits_ten_seconds_for_other_writers(room: Room, seal: PostgresSeal) -> None:
    seal.put_on()
    assert room.run("SHOW lock_timeout") == [("10s",)]


def test_all_tables_are_sealed_or_none(room: Room, seal: PostgresSeal) -> None:
    room.run(f"ALTER TABLE {SEALED[-1]} RENAME TO elsewhere")
    with pytest.raises(psycopg.errors.UndefinedTable):
        seal.put_on()
    room.run(f"ALTER TABLE elsewhere RENAME TO {SEALED[-1]}")
    assert not is_sealed(room)


@pytest.mark.parametrize(("given", "is_served"), [((0, 0), True), ((1, 0), False), ((0, 1), False)])
def test_a_service_is_told_by_its_lock(
    room: Room, seal: PostgresSeal, given: tuple[int, int], *, is_served: bool
) -> None:
    other_class, more = given
    assert not seal.is_served()
    room.run(LOCK, {"class": OUTB + other_class, "more": more})
    assert seal.is_served() is is_served


def test_a_service_of_another_database_is_none(
    room: Room, seal: PostgresSeal, postgres: PostgresServer
) -> None:
    """Their tables may have the same number."""
    [(number,)] = room.run("SELECT 'outbox'::regclass::oid::bigint")
    with new_outbox(postgres, "served") as url, psycopg.connect(url) as other:
        lock = "SELECT pg_advisory_xact_lock_shared(%s, %s::integer)"
        other.execute(lock, [OUTB, number])
        assert not seal.is_served()


def test_only_the_session_that_listens_holds_the_lock(room: Room, seal: PostgresSeal) -> None:
    here = room.connection.info.backend_pid
    room.run(HOLD_SERVED_LOCK, {**SERVES, "backend": here + 1})
    assert not seal.is_served()
    room.run(HOLD_SERVED_LOCK, {**SERVES, "backend": here})
    assert seal.is_served()
    room.run(f"SELECT pg_advisory_unlock_shared(%(class)s, {SERVED_LOCK_NUMBER}::integer)", SERVES)


@pytest.mark.parametrize(
    ("moves", "stays_sealed"),
    [
        ([], False),
        (["started"], True),
        (["finished a"], False),
        (["started", "finished a"], False),
        (["finished a", "started"], True),
        (["started", "finished a", "started"], True),
    ],
)
def test_an_outbox_stays_sealed_while_a_move_into_it_is_not_finished(
    room: Room, moves: list[str], *, stays_sealed: bool
) -> None:
    transfer = PostgresTransfer(room.connection)
    for detail in moves:
        transfer.metadata.note_move("ada", detail)
    with transfer.unserved() as is_unserved:
        assert is_unserved
        assert is_sealed(room)
    assert is_sealed(room) is stays_sealed


def test_the_counts_are_right_after_a_move_that_fails(room: Room) -> None:
    room.wait(1, 2)
    with pytest.raises(KeyError), PostgresTransfer(room.connection).unserved():
        raise KeyError
    assert [row["pending"] for row in room.table("changes")] == [[2]]
    assert not is_sealed(room)


def test_an_outbox_that_is_served_is_left_as_it_is(room: Room) -> None:
    room.run(LOCK, {**SERVES, "more": 0})
    room.wait(1)
    with PostgresTransfer(room.connection).unserved() as is_unserved:
        assert not is_unserved
        assert not is_sealed(room)
    assert not is_sealed(room)
    assert room.table("changes") == []


def test_a_move_writes_what_it_seals(postgres: PostgresServer) -> None:
    with new_outbox(postgres, "sealed") as url:
        with open_postgres_transfer(url) as opened, opened.unserved() as is_unserved:
            assert is_unserved
            opened.events.write(ROWS, payloads(*ROWS))
            opened.metadata.write(METADATA)
            opened.metadata.note_move("ada", "started")
            with open_postgres_transfer(url) as other:
                assert len(other.events.page(0, 9)) == 5
                assert other.metadata.read() == METADATA
                assert other.metadata.moves() == ["started"]
        with psycopg.connect(url) as application:
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                application.execute("DELETE FROM outbox")
            application.rollback()
            assert application.execute("SELECT pending FROM outbox_changes").fetchall() == [([2],)]


def test_a_session_of_a_move_prepares_nothing_and_compiles_nothing(room_url: str) -> None:
    """A pooler gives its statements to several sessions; a page's are run once."""
    with open_postgres_transfer(room_url) as opened:
        for _ in range(9):
            assert opened.events.page(0, 9) == []
        connection: Any = opened.events._connection
        prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall()
        assert prepared == [(0,)]
        assert connection.execute("SHOW jit").fetchall() == [("off",)]


def test_an_outbox_that_can_not_be_reached_is_told(room_url: str) -> None:
    with (
        pytest.raises(OutboxUnavailableError, match="can't be used: PostgreSQL text"),
        open_postgres_transfer(room_url) as opened,
    ):
        opened.events.write([msgspec.structs.replace(ROWS[0], name="\0")], payloads(ROWS[0]))
    with pytest.raises(OutboxUnavailableError), open_postgres_transfer("postgresql://nobody@:1/x"):
        pass
