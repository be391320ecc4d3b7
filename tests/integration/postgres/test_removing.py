"""What a purge removes on PostgreSQL, page by page, and what it leaves."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.postgres import repairs as module
from tests.support.postgres_room import START_MS, Room
from tests.support.repair_room import RepairRoom


@pytest.fixture
def here(room: Room) -> RepairRoom:
    room.at(100)
    return RepairRoom(room)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a purge paused, each time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return found


def given(here: RepairRoom, name: str) -> list[Any]:
    """A parameter of each page."""
    return [given[name] for statement, given, _ in here.pool.asked if statement == module.PURGE]


async def test_rows_that_were_delivered_long_ago_go(here: RepairRoom) -> None:
    here.done(1, at=98.5)
    here.done(2, "b", at=98.501)
    here.done(3, at=1, dead=True)
    here.done(4, at=2)
    here.pending(5)
    assert await here.repairs.purge(older_than_seconds=1.5, actor="ada") == 2
    assert here.left() == here.noted() == [2, 3, 5]
    assert here.room.places() == {2: "done", 3: "done", 5: "ready"}
    [changed] = here.room.table("changes")
    names = ("owners", "pending", "stored", "stored_bytes", "delivered")
    assert [changed[name] for name in names] == [["a"], [], [-2], [-5], -2]
    [said] = here.room.table("audit")
    names = ("actor", "action", "detail", "at_ms", "ids")
    assert [said[name] for name in names] == [
        *("ada", "purge", "2 delivered rows"),
        START_MS + 100_000,
        "[]",
    ]
    assert here.beside.expired == []


async def test_a_purge_of_nothing_leaves_no_trace(here: RepairRoom) -> None:
    here.done(1, at=99)
    assert await here.repairs.purge(older_than_seconds=10, actor="ada") == 0
    assert here.room.table("changes") == here.room.table("audit") == []


async def test_the_retention_drops_partitions_and_spares_those_to_be_dropped(
    here: RepairRoom,
) -> None:
    for seq in range(1, 7):
        here.done(seq)
    here.beside.dropped, here.beside.spares = 7, (3, 5)
    assert await here.repairs.purge(older_than_seconds=10, actor=None) == 7 + 4
    assert here.left() == [3, 4]
    assert here.beside.expired == [10, 10]
    assert here.room.table("audit") == []


async def test_a_retention_goes_on_where_the_one_before_ended(here: RepairRoom) -> None:
    async def purge() -> int:
        return await here.repairs.purge(older_than_seconds=10, actor=None)

    here.done(1, at=40)
    here.done(2, at=50)
    assert await purge() == 2
    assert await purge() == 0
    here.done(3, at=49)
    here.done(4, at=50)
    assert await purge() == 1
    ended = START_MS + 50_000
    assert given(here, "from_ms") == [0, ended, ended]
    here.beside.spares = (90, 91)
    assert await purge() == 1
    assert given(here, "from_ms")[3:] == [0]
    assert here.left() == []
    here.done(5, at=20)
    assert await here.repairs.purge(older_than_seconds=10, actor="ada") == 1


async def test_a_purge_has_pages_with_pauses(here: RepairRoom, pauses: list[float]) -> None:
    """Each begins where the one before ended, so the rows come in the order of their settling."""
    here.room.run(
        "WITH put AS ("
        "    INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, payload)"
        "    SELECT n::text, 'n', 'o', 'u', 0, '{}' FROM generate_series(1, 1000) AS n"
        "    RETURNING seq"
        ") INSERT INTO outbox_done (seq, settled_at_ms, attempts, sends, isolated, dead)"
        "SELECT seq, 2000 - seq, 1, 1, false, false FROM put"
    )
    assert await here.repairs.purge(older_than_seconds=10, actor="ada") == 1000
    assert here.left() == []
    assert given(here, "from_ms") == [0, 1499, 1999]
    assert pauses == [0.02, 0.02]
