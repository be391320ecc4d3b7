"""Who may change the partitions of a PostgreSQL outbox, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.postgres_room import Room
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.repair_room import RepairRoom
from tests.support.storage import eventually

MAY = "SELECT outbox_may_change_partitions()"
SEAL = """
CREATE TRIGGER outbox_sealed BEFORE INSERT OR UPDATE OR DELETE ON outbox
FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse()
"""
MOVING = "SELECT set_config('outbox.moving', %s, true)"
SEALED = "The outbox is sealed: it was moved, or a move into it is not finished."
# Each after the one before, with a lock that it waits for: what it gives in vain, and when it may.
CHANGES: list[tuple[str, str, Any, Any]] = [
    ("SELECT outbox_make_partition()", "outbox IN ACCESS SHARE", False, True),
    ("SELECT outbox_close_partition()", "outbox IN ROW EXCLUSIVE", False, True),
    ("SELECT outbox_detach_partition(0, 9, 9)", "outbox IN ACCESS SHARE", False, True),
    ("SELECT outbox_drop_detached(9)", "{dropped} IN ACCESS SHARE", None, 0),
]
STATEMENTS = [statement for statement, *_ in CHANGES]
TURN = """
SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""
OLDEST = "SELECT 'outbox_p' || min(number) FROM outbox_partitions"
LEVELS = [level for level in psycopg.IsolationLevel if level.name != "READ_COMMITTED"]


@pytest.fixture(scope="module")
def changers_url(postgres: PostgresServer) -> Iterator[str]:
    with new_outbox(postgres, "changers") as url:
        yield url


@pytest.mark.parametrize("change", STATEMENTS)
def test_who_may_not_delete_rows_changes_no_partition(room: Room, change: str) -> None:
    room.run("CREATE ROLE shop; GRANT USAGE ON SCHEMA clock TO shop")
    room.run("SET LOCAL SESSION AUTHORIZATION shop")
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege) as refused,
        room.connection.transaction(),
    ):
        room.run(change)
    said = "permission denied for the partitions of the outbox"
    assert refused.value.diag.message_primary == said


@pytest.mark.parametrize("right", ["INSERT, UPDATE, SELECT, TRUNCATE", "DELETE"])
def test_the_right_to_delete_rows_is_the_one_that_counts(room: Room, right: str) -> None:
    room.run(f"CREATE ROLE shop; GRANT {right} ON outbox TO shop")
    room.run("SET LOCAL SESSION AUTHORIZATION shop")
    make = STATEMENTS[0]
    if right == "DELETE":
        assert room.run(make) == [(True,)]
    else:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            room.run(make)


@pytest.mark.parametrize("level", LEVELS)
def test_partitions_are_changed_at_read_committed(
    changers_url: str, level: psycopg.IsolationLevel
) -> None:
    """An early snapshot would not show the last rows of a partition that it closes."""
    with psycopg.connect(changers_url) as connection:
        assert connection.execute(MAY).fetchall() == [(True,)]
        connection.rollback()
        connection.isolation_level = level
        with pytest.raises(psycopg.errors.InvalidTransactionState) as refused:
            connection.execute(MAY)
    said = "partitions are changed in a transaction of isolation level read committed"
    assert refused.value.diag.message_primary == said


async def changes(connection: psycopg.Connection[Any], statement: str, wanted: Any) -> None:
    """Repeat a change until it gives this: one that took more than 0.2 s is not done."""

    async def given() -> Any:
        [(found,)] = connection.execute(statement.encode()).fetchall()
        connection.commit()
        return found

    await eventually(given, lambda found: found == wanted)


async def test_one_session_at_a_time_changes_partitions(changers_url: str) -> None:
    with psycopg.connect(changers_url) as one, psycopg.connect(changers_url) as other:
        assert one.execute(MAY).fetchall() == [(True,)]
        [turn] = one.execute(TURN).fetchall()
        one.rollback()
        for statement, _, late, first in CHANGES:
            one.execute("SELECT pg_advisory_xact_lock(%s)", turn)
            assert other.execute(statement.encode()).fetchall() == [(late,)]
            one.rollback()
            await changes(other, statement, first)


async def test_who_waits_too_long_for_a_table_changes_no_partition(changers_url: str) -> None:
    """All posts would wait behind it."""
    with psycopg.connect(changers_url) as one, psycopg.connect(changers_url) as other:
        [(dropped,)] = other.execute(OLDEST).fetchall()
        other.commit()
        for statement, lock, late, first in CHANGES:
            one.execute(f"LOCK TABLE {lock.format(dropped=dropped)} MODE".encode())
            assert other.execute(statement.encode()).fetchall() == [(late,)]
            other.commit()
            one.rollback()
            await changes(other, statement, first)


@pytest.mark.parametrize("table", ["outbox", "outbox_done"])
async def test_a_partition_is_made_while_no_statement_reads_events(
    changers_url: str, table: str
) -> None:
    """Its plan would be without the partition of rows that it sees."""
    with psycopg.connect(changers_url) as one, psycopg.connect(changers_url) as other:
        one.execute(f"SELECT FROM {table} WHERE false".encode())
        assert other.execute(STATEMENTS[0].encode()).fetchall() == [(False,)]
        other.commit()
        one.rollback()
        await changes(other, STATEMENTS[0], wanted=True)
        await changes(other, STATEMENTS[1], wanted=True)


@pytest.mark.parametrize("change", STATEMENTS)
def test_no_partition_of_a_sealed_outbox_is_changed(room: Room, change: str) -> None:
    room.run(SEAL)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        room.run(change)
    assert refused.value.diag.message_primary == SEALED


@pytest.mark.parametrize("moving", ["", "no"])
def test_a_sealed_outbox_takes_writes_of_its_move_alone(
    room: Room, here: RepairRoom, moving: str
) -> None:
    here.event(1)
    room.run(SEAL)
    room.run(MOVING, ["yes"])
    here.event(2)
    room.run("DELETE FROM outbox WHERE seq = 1")
    assert here.left() == [2]
    room.run(MOVING, [moving])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=SEALED):
        here.event(3)


def test_a_look_at_the_right_leaves_the_rows(room: Room, here: RepairRoom) -> None:
    here.event(1)
    assert room.run(MAY) == [(True,)]
    assert here.left() == [1]


@pytest.mark.parametrize(("wanted", "stored"), [(1, 2), (2, 1)])
def test_what_is_stored_in_part_is_not_whole(room: Room, wanted: int, stored: int) -> None:
    ask = "SELECT outbox_check_whole(%s, %s)"
    assert room.run(ask, [wanted, wanted]) == [(True,)]
    with pytest.raises(psycopg.errors.SerializationFailure) as refused:
        room.run(ask, [wanted, stored])
    said = "a key was used by another transaction meanwhile"
    assert refused.value.diag.message_primary == said
