"""What people on call read of a PostgreSQL outbox: its figures, its owners, its audit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.outbox.model import DeliveryRecord, Filter
from service.outbox.owner_share import OwnerShare
from service.outbox.postgres.delivery import SET_PAUSED, PostgresDelivery
from service.outbox.postgres.inspector import PostgresInspector
from service.outbox.postgres.trail import AUDITED_ACT, PostgresTrail
from tests.support.postgres_room import START_MS, Room, RoomPool, after


@pytest.fixture
def pool(room: Room) -> Any:
    room.at(100)
    return RoomPool(room)


@pytest.fixture
def inspector(pool: Any) -> PostgresInspector:
    return PostgresInspector(pool, PostgresDelivery(pool))


def put_event(room: Room, seq: int, *, at: float | None = None, payload: bytes = b"{}") -> None:
    """An event that was accepted at this second, else at that of its number."""
    values = {"event_id": f"e-{seq}", "name": "n", "owner": "o", "user_id": "u"}
    accepted_at_ms = START_MS + round(1000 * (seq if at is None else at))
    room.put("", seq=seq, accepted_at_ms=accepted_at_ms, payload=payload, **values)


def put_ready(room: Room, seq: int, due: float | None = None, *, isolated: bool = False) -> None:
    put_event(room, seq)
    due_at = None if due is None else after(due)
    room.put("ready", seq=seq, due_at=due_at, isolated=isolated, payload_bytes=2)


def put_claim(room: Room, *seqs: int, lease: float = 500) -> None:
    for seq in seqs:
        put_event(room, seq)
    arrays = {name: [0] * len(seqs) for name in ("attempts", "sends", "first_sent_at_ms")}
    arrays |= {"seqs": list(seqs), "isolated": [False] * len(seqs)}
    room.put("claims", claim=f"{seqs}", lease_until=after(lease), claimed_at_ms=0, **arrays)


def totals(room: Room) -> None:
    """Figures by the first change, and what the second and the third one changed."""
    room.run(
        "UPDATE outbox_meta SET changes_folded = 1, pending = 40, delivered = 10, dead = 20,"
        " sent = 30"
    )


async def test_the_figures_are_what_is_folded_and_what_changed_since(
    room: Room, inspector: PostgresInspector
) -> None:
    totals(room)
    room.put("changes", owners=["a"], pending=[100], delivered=100)
    room.put("changes", owners=["a", "b"], pending=[3, 4], delivered=4, changed_at=after(94.5))
    room.put("changes", owners=["a"], sent=5, dead=1, changed_at=after(95.5))
    put_claim(room, 1, 2, lease=20)
    put_claim(room, 3, lease=19.999)
    room.mark(lease_from=after(20))
    found = await inspector.stats()
    assert (found.pending, found.delivering) == (45, 2)
    assert (found.delivered, found.dead, found.sent) == (14, 21, 35)
    assert found.delivery is not None
    assert found.delivery.rate == 1.0
    assert (found.delivery.state, found.delivery.pause_reason) == ("healthy", "")
    assert found.database_bytes is not None
    assert found.database_bytes > 0
    assert found.wal_bytes is None


async def test_figures_without_a_change(room: Room, inspector: PostgresInspector) -> None:
    totals(room)
    found = await inspector.stats()
    assert (found.pending, found.delivering, found.delivered) == (40, 0, 10)
    assert (found.oldest_pending_seconds, found.oldest_due_seconds) == (None, None)
    room.run("UPDATE outbox_meta SET pending = 1")
    put_claim(room, 1, 2)
    assert (await inspector.stats()).pending == 0


# New rows; delayed ones with the time when they are due; isolated ones; claimed ones; the ages of
# the oldest row and of the oldest that is due. A row's number is the second of its acceptance.
Rows = tuple[list[int], dict[int, float], dict[int, float], list[int]]
OLDEST: list[tuple[Rows, tuple[float | None, float | None]]] = [
    (([5, 3], {}, {}, []), (97, 97)),
    (([2, 5], {}, {}, []), (95, 95)),
    (([5], {4: 50}, {}, []), (96, 96)),
    (([5], {4: 100}, {}, []), (96, 96)),
    (([5], {4: 100.001}, {}, []), (96, 95)),
    (([3], {4: 50}, {}, []), (97, 97)),
    (([], {7: 50, 6: 50}, {}, []), (94, 94)),
    (([], {7: 50, 6: 200}, {}, []), (94, 93)),
    (([], {6: 10}, {}, []), (94, 94)),
    (([], {6: 9.999}, {}, []), (None, None)),
    (([5], {}, {4: 50}, []), (96, 96)),
    (([5], {}, {4: 200}, []), (96, 95)),
    (([], {}, {4: 20, 6: 30}, []), (96, 96)),
    (([], {}, {6: 19.999}, []), (None, None)),
    (([], {}, {}, [9, 8]), (92, None)),
    (([7], {}, {}, [9, 8]), (93, 93)),
    (([9], {}, {}, [8]), (92, 91)),
    (([130], {}, {}, []), (0, 0)),
]


@pytest.mark.parametrize(("rows", "ages"), OLDEST)
async def test_the_oldest_rows_are_searched_from_the_marks(
    room: Room,
    inspector: PostgresInspector,
    rows: Rows,
    ages: tuple[float | None, float | None],
) -> None:
    new, delayed, isolated, claimed = rows
    room.mark(ready_from=3, due_from=after(10), isolated_from=after(20))
    for seq in new:
        put_ready(room, seq)
    for lane in (delayed, isolated):
        for seq, at in lane.items():
            put_ready(room, seq, at, isolated=lane is isolated)
    if claimed:
        put_claim(room, *claimed)
    found = await inspector.stats()
    assert (found.oldest_pending_seconds, found.oldest_due_seconds) == ages


@pytest.mark.parametrize("isolated", [False, True])
async def test_the_oldest_delayed_row_is_searched_among_the_first_thousand(
    room: Room, inspector: PostgresInspector, *, isolated: bool
) -> None:
    put_ready(room, 1, 99, isolated=isolated)
    room.run(
        "INSERT INTO outbox_ready (seq, due_at, isolated, payload_bytes)"
        " SELECT n, %s, %s, 2 FROM generate_series(2, 1001) AS n",
        [after(50), isolated],
    )
    put_event(room, 2)
    assert (await inspector.stats()).oldest_pending_seconds == 98


async def test_owners_come_by_their_bytes(room: Room, inspector: PostgresInspector) -> None:
    totals(room)
    for owner, size in (("b", 7), ("a", 7), ("gone", 9), ("small", 5)):
        room.put("counts", owner=owner, pending=0, stored=2, stored_bytes=size)
    room.put("changes", owners=["small"], stored=[100], stored_bytes=[100])
    room.put("changes", owners=["small", "gone"], stored=[-1, -2], stored_bytes=[1, -9])
    room.put("changes", owners=["new"], stored=[3], stored_bytes=[8])
    assert await inspector.owners(9) == [
        OwnerShare("new", 3, 8),
        OwnerShare("a", 2, 7),
        OwnerShare("b", 2, 7),
        OwnerShare("small", 1, 6),
    ]
    assert [share.owner for share in await inspector.owners(2)] == ["new", "a"]


def put_act(room: Room, act: str, *ids: str) -> None:
    rest = {"at_ms": 1, "actor": "ada", "action": "discard", "detail": act}
    room.put("audit", act=act, ids=json.dumps(ids), **rest)


async def test_the_newest_acts_come_first_with_all_their_rows(
    room: Room, inspector: PostgresInspector
) -> None:
    for act, one in (("x", "e-1"), ("y", "e-2"), ("z", "e-1"), ("x", "e-3")):
        put_act(room, act, one)
    found = await inspector.audit(9)
    assert [(record.act, record.ids) for record in found] == [
        ("x", ("e-1", "e-3")),
        ("z", ("e-1",)),
        ("y", ("e-2",)),
    ]
    assert [record.act for record in await inspector.audit(2)] == ["x", "z"]
    for event, acts in (("e-1", ["z", "x"]), ("e-2", ["y"]), ("e", ["x", "z", "y"]), ("-1", [])):
        assert [record.act for record in await inspector.audit(9, event=event)] == acts
    assert [len(record.ids) for record in await inspector.audit(9, event="e-1")] == [1, 2]


async def test_an_event_has_its_payload(room: Room, inspector: PostgresInspector) -> None:
    put_event(room, 1, payload=b"one")
    put_event(room, 2, payload=b"two")
    assert await inspector.payload("e-2") == b"two"
    assert await inspector.payload("e-3") is None
    assert await inspector.payload("e-\0") is None


async def test_rows_are_found_and_counted(room: Room, inspector: PostgresInspector) -> None:
    put_ready(room, 1)
    assert [row.id for row in await inspector.rows(Filter())] == ["e-1"]
    assert await inspector.count(Filter()) == 1


async def test_an_act_about_one_event_is_in_the_audit_once(room: Room, pool: RoomPool) -> None:
    given: Any = pool
    trail = PostgresTrail(given)
    for _ in range(2):
        await trail.record("payload", actor="ada", event_id="e-1", detail="shown")
    room.run(AUDITED_ACT, pool.asked[-1][1])  # a repetition
    first, second = room.table("audit")
    assert first["act"] != second["act"]
    names = ("actor", "action", "detail", "ids", "at_ms")
    said = ["ada", "payload", "shown", '["e-1"]', START_MS + 100_000]
    assert [first[name] for name in names] == said


RECORD = DeliveryRecord(
    "backing_off", "busy", 3, 4, 5.0, 6, rate=7.0, destination="there", confirmation="none"
)


async def test_a_record_is_loaded_as_it_was_saved(room: Room, inspector: PostgresInspector) -> None:
    delivery = inspector._delivery
    [before] = room.table("delivery")
    saved = await delivery.save(RECORD)
    revision = before["revision"] + 1
    fields = {"reason": "busy", "window": 3, "failures": 4, "since_ms": 6, "rate": 7.0}
    texts = {"destination": "there", "confirmation": "none"}
    wanted = {**fields, **texts, "state": "backing_off", "reopens_in_seconds": 5.0}
    assert saved == DeliveryRecord(**wanted, revision=revision)
    room.at(102)
    loaded = await inspector.load_delivery()
    assert (loaded.reopens_in_seconds, loaded.revision) == (3.0, revision)
    room.at(200)
    assert (await delivery.load()).reopens_in_seconds == 0.0


@pytest.mark.parametrize("seconds", [0.0, -5.0])
async def test_a_record_that_waits_for_nothing(
    inspector: PostgresInspector, seconds: float
) -> None:
    saved = await inspector._delivery.save(DeliveryRecord("healthy", "", 1, 0, seconds, 0))
    assert saved.reopens_in_seconds == 0.0


async def test_a_pause_is_kept_by_a_save_and_in_the_audit(
    room: Room, inspector: PostgresInspector
) -> None:
    delivery = inspector._delivery
    saved = await delivery.save(RECORD)
    paused = await delivery.set_paused(paused=True, actor="ada", reason="why")
    assert (paused.paused_by, paused.pause_reason) == ("ada", "why")
    assert (paused.revision, paused.reopens_in_seconds) == (saved.revision + 1, 5.0)
    again = await delivery.save(RECORD)
    assert (again.paused_by, again.pause_reason) == ("ada", "why")
    resumed = await delivery.set_paused(paused=False, actor="bob", reason="well", ask_now=True)
    assert (resumed.paused_by, resumed.pause_reason) == (None, "")
    assert resumed.reopens_in_seconds == 0.0
    names = ("actor", "action", "detail", "at_ms")
    assert [tuple(row[name] for name in names) for row in room.table("audit")] == [
        ("ada", "pause", "why", START_MS + 100_000),
        ("bob", "resume", "well", START_MS + 100_000),
    ]


async def test_a_pause_that_is_repeated_changes_nothing(
    room: Room, inspector: PostgresInspector, pool: RoomPool
) -> None:
    """Its answer was lost; somebody has resumed meanwhile."""
    delivery = inspector._delivery
    await delivery.set_paused(paused=True, actor="ada", reason="why")
    _, pause, _ = pool.asked[-1]
    resumed = await delivery.set_paused(paused=False, actor="bob")
    assert room.run(SET_PAUSED, pause) == []
    assert await delivery.load() == resumed
    assert [row["actor"] for row in room.table("audit")] == ["ada", "bob"]
