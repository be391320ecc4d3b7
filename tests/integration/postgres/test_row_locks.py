"""What one session holds, another leaves out or waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from service.outbox.model import Dead, Isolated, Named, Settlement, State
from service.outbox.postgres.delivery import SET_PAUSED
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.repairs import PostgresRepairs
from service.outbox.postgres.settlements import SETTLE, settle_values
from service.outbox.postgres.trail import audited
from tests.support.postgres_room import Room
from tests.support.postgres_rows import empty_outbox, new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.repair_room import RepairRoom
from tests.support.storage import eventually

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"


class Sessions:
    """Two sessions on one outbox: `mine` has an open transaction, `other` commits at once."""

    def __init__(self, url: str) -> None:
        self.mine = psycopg.connect(url)
        self.other = psycopg.connect(url, autocommit=True)
        self.other.execute("SET lock_timeout = '200ms'")

    def close(self) -> None:
        self.mine.close()
        self.other.close()


@pytest.fixture(scope="module")
def locks_url(postgres: PostgresServer) -> Iterator[str]:
    """An outbox that no process has served: its marks are before the first row."""
    with new_outbox(postgres, "locks") as url:
        yield url


@pytest.fixture
def sessions(locks_url: str) -> Iterator[Sessions]:
    empty_outbox(locks_url)
    found = Sessions(locks_url)
    yield found
    found.close()


def taken(connection: psycopg.Connection[Any], max_events: int, **changes: Any) -> list[int]:
    """The seqs of a claim in a session whose clock is the server's."""
    return Room(connection).take(max_events, **changes)


# The lane; its rows; whether a claim takes the lowest or the highest first; and how it is asked.
LANES: list[tuple[dict[str, Any], list[int], dict[str, Any]]] = [
    ({}, [1, 2, 3], {}),
    ({}, [3, 2, 1], {"fresh_share": 1.0}),
    ({"due": 0.0}, [1, 2, 3], {}),
    ({"due": 0.0, "isolated": True}, [1, 2, 3], {"isolated": Isolated.FIRST}),
    ({"due": 0.0, "isolated": True}, [1, 2, 3], {"isolated": Isolated.LAST}),
    ({"express": True}, [1, 2, 3], {"express": True, "turn": True, "window": 0}),
    ({"due": 0.0, "express": True}, [1, 2, 3], {"express": True, "turn": True}),
]


@pytest.mark.parametrize(("lane", "order", "changes"), LANES)
def test_a_claim_leaves_out_what_another_session_is_claiming(
    sessions: Sessions, lane: dict[str, Any], order: list[int], changes: dict[str, Any]
) -> None:
    room = Room(sessions.other)
    for seq in (1, 2, 3):
        room.wait(seq, **{**lane, **({"due": seq * 1.0} if "due" in lane else {})})
    assert taken(sessions.mine, 1, claim="mine", **changes) == order[:1]
    assert taken(sessions.other, 1, claim="other", **changes) == order[1:2]
    sessions.mine.rollback()
    assert taken(sessions.other, 1, claim="third", **changes) == order[:1]


def test_the_end_of_leases_leaves_out_what_another_session_ends(sessions: Sessions) -> None:
    room = Room(sessions.other)
    for seq in (1, 2):
        room.wait(seq)
        room.take(1, claim=f"{seq}", lease_seconds=-1.0)
    sessions.mine.execute("SELECT FROM outbox_claims WHERE claim = '1' FOR UPDATE")
    assert room.expire() == 1
    sessions.mine.rollback()
    assert room.expire() == 1


ALL = Named(tuple(f"e-{seq}" for seq in range(1, 7)))
DELIVERED = Named(ALL.ids, State.DELIVERED)
COMMANDS: list[tuple[str, int, Callable[[PostgresRepairs], Awaitable[Any]]]] = [
    ("ready", 5, lambda repairs: repairs.discard(ALL, actor="ada")),
    ("sent", 5, lambda repairs: repairs.discard(ALL, actor="ada")),
    ("done", 5, lambda repairs: repairs.discard(ALL, actor="ada")),
    ("done", 1, lambda repairs: repairs.replay(DELIVERED, actor="ada")),
    ("done", 1, lambda repairs: repairs.purge(older_than_seconds=10, actor="ada")),
]


@pytest.mark.parametrize(("place", "changed", "command"), COMMANDS)
async def test_an_operators_command_leaves_out_a_row_that_another_session_moves(
    sessions: Sessions,
    place: str,
    changed: int,
    command: Callable[[PostgresRepairs], Awaitable[Any]],
) -> None:
    here = RepairRoom(Room(sessions.other))
    for at, put in enumerate((here.pending, here.sent, here.done)):
        put(2 * at + 1)
        put(2 * at + 2)
    locked = [2, 4, 6]
    sessions.mine.execute(f"SELECT FROM outbox_{place} WHERE seq = ANY(%s) FOR UPDATE", [locked])
    found = await command(here.repairs)
    assert (found if isinstance(found, int) else len(found)) == changed


async def after_mine(sessions: Sessions, statement: str, given: Any = None) -> list[Any]:
    """What the other session gets: it begins before mine commits, and may wait for it."""
    sessions.other.execute("SET lock_timeout = '10s'")
    waiting = asyncio.create_task(
        asyncio.to_thread(lambda: sessions.other.execute(statement, given).fetchall())
    )
    with psycopg.connect(sessions.mine.info.dsn, autocommit=True) as looking:
        other = sessions.other.info.backend_pid

        async def waits() -> bool:
            return waiting.done() or looking.execute(WAITING, [other]).fetchall() == [(1,)]

        await eventually(waits)
    sessions.mine.commit()
    return await waiting


def test_of_two_folds_at_once_the_second_does_nothing(sessions: Sessions) -> None:
    room = Room(sessions.other)
    room.run("INSERT INTO outbox_changes (owners, pending, sent) VALUES ('{a}', '{1}', 2)")
    [(number,)] = room.run("SELECT max(no) FROM outbox_changes")
    room.mark(safe_change=number)
    assert sessions.mine.execute(FOLD).fetchall() == [(True,)]
    assert sessions.other.execute(FOLD).fetchall() == [(False,)]
    sessions.mine.commit()
    assert room.run("SELECT pending, sent FROM outbox_meta") == [(1, 2)]
    assert room.run("SELECT pending FROM outbox_by_owner") == [(1,)]


async def test_of_two_settlements_of_one_claim_the_second_sees_what_the_first_did(
    sessions: Sessions,
) -> None:
    """It waits for the claim's row: its own snapshot still has both rows under the claim."""
    room = Room(sessions.other)
    room.wait(1, 2)
    room.take(claim="c")
    settled = settle_values(Settlement("c", delivered=[1, 2]))
    late = settle_values(Settlement("c", dead=[Dead(1, 1, "late", "late")]))
    assert sessions.mine.execute(SETTLE, settled).fetchall() == [(0, False, True)]
    assert await after_mine(sessions, SETTLE, late) == [(1, False, True)]
    assert Room(sessions.other).places() == {1: "done", 2: "done"}
    assert [row["dead"] for row in Room(sessions.other).rows("done").values()] == [False] * 2


async def test_settlements_of_parts_of_one_claim_at_once_settle_all_of_it(
    sessions: Sessions,
) -> None:
    room = Room(sessions.other)
    room.wait(1, 2, 3)
    room.take(claim="c")
    first = settle_values(Settlement("c", delivered=[1]))
    assert sessions.mine.execute(SETTLE, first).fetchall() == [(0, False, False)]
    second = settle_values(Settlement("c", delivered=[2]))
    assert await after_mine(sessions, SETTLE, second) == [(0, False, False)]
    assert room.places() == {1: "done", 2: "done", 3: "claims"}
    assert room.table("claims")[0]["seqs"] == [3]


async def test_a_pause_beside_a_save_of_a_process_keeps_what_was_saved(sessions: Sessions) -> None:
    saved = "UPDATE outbox_delivery SET failures = 7"
    sessions.mine.execute(saved)
    pause = {**audited("pause", actor="ada", detail="why"), "paused_by": "ada"}
    [record] = await after_mine(sessions, SET_PAUSED, {**pause, "ask_now": False})
    assert (record[3], record[7]) == (7, "ada")
    assert sessions.other.execute(SET_PAUSED, {**pause, "ask_now": False}).fetchall() == []
    assert len(Room(sessions.other).table("audit")) == 1
