"""What people read of a row of a PostgreSQL outbox: its fields, its times, its notes."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.event import Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Filter, Row, State
from service.outbox.postgres.row_reader import find_row, find_rows
from service.outbox.postgres.rows import ROWS, ROWS_BY_IDS, ROWS_IN_STATE
from tests.support.postgres_room import START_MS, Room, RoomPool, after

ULID = "01HF7YAT00AAAAAAAAAAAAAAAA"


def put_event(room: Room, seq: int, **values: Any) -> None:
    one = {"event_id": f"e-{seq}", "name": "n", "owner": "o", "user_id": "u", "payload": b"12345"}
    room.put("", **{**one, "seq": seq, "accepted_at_ms": START_MS, **values})


async def test_a_row_has_all_that_is_known_of_it(room: Room, pool: Any) -> None:
    put_event(room, 7, wire_id="w", environment="env")
    past = {"first_sent_at_ms": 4, "attempts": 2, "sends": 3, "isolated": True}
    room.put("done", seq=7, settled_at_ms=6, dead=True, reason="why", detail="how", **past)
    [(prefix,)] = room.run("SELECT inngest_id_prefix FROM outbox_meta")
    wanted = Row(
        id="e-7",
        name="n",
        owner="o",
        user_id="u",
        state=State.DEAD,
        attempts=2,
        sends=3,
        isolated=True,
        accepted_at_ms=START_MS,
        first_sent_at_ms=4,
        settled_at_ms=6,
        due_in_seconds=None,
        lease_in_seconds=None,
        reason="why",
        detail="how",
        history=(),
        payload_bytes=5,
        inngest_id=InngestIds(prefix).ulid(7, START_MS),
        seq=7,
        meta=Meta("w", "env"),
    )
    assert await find_row(pool, "e-7") == wanted
    assert await find_rows(pool, Filter(state=State.DEAD)) == [wanted]
    assert await find_rows(pool, Filter()) == [wanted]
    assert await find_row(pool, "e-8") is None
    [found] = await find_rows(pool, Filter())
    assert isinstance(found.state, State)


async def test_a_row_of_another_outbox_has_its_ulid(room: Room, pool: Any) -> None:
    room.wait(1)
    room.run("UPDATE outbox SET inngest_id = %s", [ULID])
    found = await find_row(pool, "e-1")
    assert found
    assert found.inngest_id == ULID


@pytest.mark.parametrize(("due", "seconds"), [(None, 0.0), (9.0, 0.0), (10.5, 0.5), (15.0, 5.0)])
async def test_a_pending_row_is_due_in_seconds(
    room: Room, pool: Any, due: float | None, seconds: float
) -> None:
    room.wait(1, due=due)
    room.at(10)
    found = await find_row(pool, "e-1")
    assert found
    assert (found.due_in_seconds, found.lease_in_seconds) == (seconds, None)


async def test_each_row_of_a_claim_has_its_own_past(room: Room, pool: Any) -> None:
    for seq in (1, 2, 3):
        put_event(room, seq)
    past = {"attempts": [5, 6], "sends": [7, 8], "first_sent_at_ms": [9, 10]}
    claim = {"claim": "c", "lease_until": after(9), "claimed_at_ms": 0, "isolated": [False, True]}
    room.put("claims", seqs=[1, 2], **claim, **past)
    room.mark(lease_from=after(9))
    rows = await find_rows(pool, Filter())
    found = [(row.id, row.attempts, row.sends, row.first_sent_at_ms, row.isolated) for row in rows]
    assert sorted(found) == [("e-1", 5, 7, 9, False), ("e-2", 6, 8, 10, True)]


@pytest.mark.parametrize(("lease", "seconds"), [(9.0, 0.0), (10.5, 0.5), (15.0, 5.0)])
async def test_a_claimed_row_has_a_lease_of_seconds(
    room: Room, pool: Any, lease: float, seconds: float
) -> None:
    put_event(room, 1)
    arrays = {"seqs": [1], "attempts": [0], "sends": [0], "isolated": [False]}
    rest = {"claimed_at_ms": 3, "first_sent_at_ms": [None], **arrays}
    room.put("claims", claim="c", lease_until=after(lease), **rest)
    room.at(10)
    found = await find_row(pool, "e-1")
    assert found
    assert (found.due_in_seconds, found.lease_in_seconds) == (None, seconds)
    assert found.first_sent_at_ms == 3
    assert await find_rows(pool, Filter(state=State.DELIVERING)) == [found]


async def test_a_row_has_its_last_twenty_notes_oldest_first(room: Room, pool: Any) -> None:
    room.wait(1, 2)
    room.put("notes", seq=2, at_ms=3, note="of another")
    for at in (3, 1, 2):
        for note in "ba":
            room.put("notes", seq=1, at_ms=at, note=note)
    ordered = [{"at": at, "note": note} for at in (1, 2, 3) for note in "ab"]
    found = await find_row(pool, "e-1")
    assert found
    assert list(found.history) == ordered
    for at in range(4, 20):
        room.put("notes", seq=1, at_ms=at, note="c")
    found = await find_row(pool, "e-1")
    assert found
    assert [note["at"] for note in found.history] == [2, 2, 3, 3, *range(4, 20)]


async def test_what_requests_ask_is_planned_once(room: Room, pool: RoomPool) -> None:
    room.wait(1)
    given: Any = pool
    for wanted in (
        Filter(ids=("e-1",)),
        Filter(ids=("e-1",), limit=7),
        Filter(ids=("e-1",), owner="o"),
        Filter(),
        Filter(limit=7),
        Filter(state=State.PENDING),
    ):
        assert [row.id for row in await find_rows(given, wanted)] == ["e-1"]
    assert [(statement, how) for statement, _, how in pool.asked] == [
        (ROWS_BY_IDS, {"often": True}),
        (ROWS_BY_IDS, {"often": True}),
        (ROWS, {}),
        (ROWS, {}),
        (ROWS, {}),
        (ROWS_IN_STATE[State.PENDING], {}),
    ]
