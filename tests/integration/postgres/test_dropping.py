"""What the functions of partitions keep and what they drop on PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.support.postgres_room import START_MS, Room, after
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.repair_room import RepairRoom
from tests.support.storage import eventually

FIRST = 1 << 36  # of partition 1
PAST = {"attempts": 1, "sends": 1, "isolated": False}
OLD_MS = 10_000
# Since the statement began so many milliseconds have passed.
LATE_CLOCK = """
CREATE OR REPLACE FUNCTION clock.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
    RETURN current_setting('clock.now')::timestamptz + interval '{ms} ms';
ALTER FUNCTION outbox_detach_partition SET search_path = clock, public, pg_catalog, pg_temp;
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"


def put(room: Room, table: str, *seqs: int) -> None:
    """Rows of a place, without their events."""
    for seq in seqs:
        if table == "ready":
            room.put("ready", seq=seq, due_at=after(0), payload_bytes=1)
        else:
            room.put(table, seq=seq, sent_at_ms=START_MS, first_sent_at_ms=START_MS, **PAST)


def settled_now(room: Room, *seqs: int) -> None:
    """Make these settlements recent by the server's clock."""
    room.run(
        "UPDATE outbox_done SET settled_at_ms ="
        " extract(epoch FROM pg_catalog.clock_timestamp()) * 1000 - 5000 WHERE seq = ANY(%s)",
        [list(seqs)],
    )


def staying(room: Room, number: int, most: int = 99) -> list[int] | None:
    [(found,)] = room.run("SELECT outbox_staying(%s, %s, %s)", [number, OLD_MS, most])
    return None if found is None else sorted(found)


def detach(room: Room, most: int = 99, most_bytes: int = 999) -> bool:
    given = [OLD_MS, most, most_bytes]
    [(done,)] = room.run("SELECT outbox_detach_partition(%s, %s, %s)", given)
    return bool(done)


def drop(room: Room, page: int = 999) -> int | None:
    [(rows,)] = room.run("SELECT outbox_drop_detached(%s)", [page])
    return rows


def known(room: Room) -> dict[int, int | None]:
    """The partitions, and up to which seq the detached ones were counted."""
    return {row["number"]: row["counted_to"] for row in room.table("partitions")}


def test_rows_that_are_not_old_and_delivered_stay(room: Room, here: RepairRoom) -> None:
    here.done(1, dead=True)
    here.done(2)
    here.done(3)
    here.done(4)
    settled_now(room, 1, 3)
    assert staying(room, 0) == [1, 3]
    assert staying(room, 0, most=0) == [1]
    here.done(5, dead=True)
    assert staying(room, 0, most=1) == [1, 5]


def test_rows_in_every_place_stay_in_their_partition(room: Room) -> None:
    room.close_partition()
    room.close_partition()
    inside = [FIRST, FIRST + 9, 2 * FIRST - 1]
    around = [FIRST - 1, *inside, 2 * FIRST]
    put(room, "ready", *around)
    put(room, "sent", *around)
    arrays = {name: [0] * 5 for name in ("attempts", "sends", "first_sent_at_ms")}
    arrays |= {"seqs": around, "isolated": [False] * 5}
    room.put("claims", claim="c", lease_until=after(9), claimed_at_ms=0, **arrays)
    assert staying(room, 1) == sorted(inside * 3)
    assert staying(room, 1, most=8) == sorted(inside * 3)
    assert len(staying(room, 1, most=7) or []) == 8


@pytest.mark.parametrize(
    ("seq", "ready_from", "keeps"),
    [
        (FIRST - 1, 0, False),
        (FIRST, 0, True),
        (2 * FIRST - 1, 0, True),
        (2 * FIRST, 0, False),
        (FIRST + 5, FIRST + 5, True),
        (FIRST + 5, FIRST + 6, False),
    ],
)
def test_a_new_row_keeps_its_partition(
    room: Room, seq: int, ready_from: int, *, keeps: bool
) -> None:
    room.close_partition()
    room.mark(ready_from=ready_from)
    room.put("ready", seq=seq, payload_bytes=1)
    assert (staying(room, 1) is None) is keeps


def test_a_detached_partition_leaves_the_rows_that_stay(room: Room, here: RepairRoom) -> None:
    here.done(3, dead=True)
    here.done(4)
    here.done(5)
    here.sent(9)
    room.close_partition()
    assert detach(room)
    assert here.room.places() == {3: "done", 9: "sent"}
    assert known(room) == {0: 3, 1: None}
    assert room.run("SELECT seq FROM outbox_kept ORDER BY seq") == [(3,), (9,)]
    assert room.run("SELECT seq FROM outbox_done_kept") == [(3,)]
    here.event(8)  # still has a partition
    assert not detach(room)


def test_the_oldest_closed_partition_is_detached_first(room: Room, here: RepairRoom) -> None:
    here.done(2)
    room.close_partition()
    here.done(FIRST + 2)
    room.close_partition()
    assert detach(room)
    assert known(room) == {0: 1, 1: None, 2: None}
    assert detach(room)
    assert known(room) == {0: 1, 1: FIRST + 1, 2: None}
    room.run("UPDATE outbox_partitions SET closed_at = closed_at WHERE number = 0")
    assert drop(room) == 1
    assert known(room) == {1: FIRST + 1, 2: None}
    assert drop(room) == 1
    assert drop(room) is None
    assert known(room) == {2: None}
    assert here.left() == []


@pytest.mark.parametrize(
    ("most", "most_bytes", "detached"),
    [(2, 30, True), (1, 30, False), (3, 30, True), (2, 29, False), (2, 31, True)],
)
def test_a_partition_of_which_too_much_stays_is_not_detached(
    room: Room, here: RepairRoom, most: int, most_bytes: int, *, detached: bool
) -> None:
    here.done(10, dead=True)
    here.done(20, dead=True)
    here.done(40)
    room.close_partition()
    assert detach(room, most, most_bytes) is detached
    assert here.left() == ([10, 20] if detached else [10, 20, 40])


@pytest.mark.parametrize(("ms", "detached"), [(200, True), (201, False)])
def test_a_detaching_that_took_long_is_not_done_again_under_its_lock(
    room: Room, here: RepairRoom, ms: int, *, detached: bool
) -> None:
    here.done(1)
    room.close_partition()
    room.run(LATE_CLOCK.format(ms=ms))
    assert detach(room) is detached
    assert here.left() == ([] if detached else [1])


def test_a_new_event_that_waits_is_not_detached(room: Room, here: RepairRoom) -> None:
    here.done(1)
    room.close_partition()
    room.put("ready", seq=2, payload_bytes=1)
    assert not detach(room)
    assert here.left() == [1]


def changes(room: Room) -> list[list[Any]]:
    names = ("owners", "stored", "stored_bytes", "delivered")
    return [[row[name] for name in names] for row in room.table("changes")]


def test_a_detached_partition_is_counted_page_by_page_and_dropped(
    room: Room, here: RepairRoom
) -> None:
    for seq in (2, 3, 4, 6, 7):
        here.done(seq)
    here.done(5, dead=True)
    here.pending(11)
    here.done(13)
    room.close_partition()
    assert detach(room)
    assert drop(room, 3) == 3
    assert changes(room) == [[["a"], [-3], [-9], -3]]
    assert here.noted() == [5, 6, 7, 11, 13]
    assert known(room)[0] == 4
    assert drop(room, 3) == 2
    assert changes(room)[1:] == [[["a"], [-2], [-13], -2]]
    assert drop(room, 3) == 0
    assert len(changes(room)) == 2
    assert drop(room, 3) == 1
    assert room.run("SELECT to_regclass('outbox_p0'), to_regclass('outbox_done_p0')") == [
        (None, None)
    ]
    assert known(room) == {1: None}
    assert here.noted() == [5, 11]
    assert room.places() == {5: "done", 11: "ready"}
    assert drop(room, 3) is None


async def test_a_drop_is_put_off_while_another_session_reads_the_partition(
    postgres: PostgresServer,
) -> None:
    """Its rows are counted once, and who drops is told to come again later."""
    with (
        new_outbox(postgres, "drops") as url,
        psycopg.connect(url, autocommit=True) as mine,
        psycopg.connect(url) as reading,
    ):
        room = Room(mine)
        RepairRoom(room).done(1)
        room.close_partition()
        await eventually(lambda: asyncio.sleep(0, detach(room)))
        reading.execute("LOCK TABLE outbox_p0 IN ACCESS SHARE MODE")
        assert [drop(room), drop(room)] == [1, None]
        reading.rollback()
        assert [drop(room), drop(room)] == [0, None]
        assert known(room) == {1: None}


async def test_an_event_that_comes_while_a_detaching_waits_keeps_its_partition(
    postgres: PostgresServer,
) -> None:
    with (
        new_outbox(postgres, "detaches") as url,
        psycopg.connect(url, autocommit=True) as mine,
        psycopg.connect(url, autocommit=True) as other,
        psycopg.connect(url) as reading,
    ):
        RepairRoom(Room(other)).done(1)
        Room(other).close_partition()
        reading.execute("LOCK TABLE ONLY outbox_done IN ACCESS SHARE MODE")
        waiting = asyncio.create_task(asyncio.to_thread(detach, Room(mine)))

        async def waits() -> bool:
            asked = other.execute(WAITING, [mine.info.backend_pid]).fetchall()
            return waiting.done() or asked == [(1,)]

        await eventually(waits)
        Room(other).put("ready", seq=2, payload_bytes=1)
        reading.rollback()
        assert not await waiting
        assert RepairRoom(Room(other)).left() == [1]
