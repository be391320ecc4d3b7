"""Which rows of a PostgreSQL outbox a filter finds, and where each place's rows are searched."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.model import Filter, State
from service.outbox.postgres import rows
from service.outbox.postgres.row_reader import count_rows, find_rows
from tests.support.explained import explained, nodes
from tests.support.postgres_room import START_MS, Room, RoomPool, after

PAST = {"attempts": 0, "sends": 0, "isolated": False}
ULID = "01HF7YAT00AAAAAAAAAAAAAAAA"


def put_event(room: Room, seq: int, **values: Any) -> None:
    """An event that was accepted at the second of its number."""
    one = {"event_id": f"e-{seq}", "name": "n", "owner": "o", "user_id": "u", "payload": b"x"}
    room.put("", **{**one, "seq": seq, "accepted_at_ms": START_MS + seq * 1000, **values})


def put_ready(room: Room, seq: int, due: float | None = None, **values: Any) -> None:
    put_event(room, seq)
    due_at = None if due is None else after(due)
    room.put("ready", seq=seq, due_at=due_at, payload_bytes=1, **values)


def put_done(room: Room, seq: int, reason: str | None = None, *, dead: bool = True) -> None:
    put_event(room, seq)
    room.put("done", seq=seq, settled_at_ms=0, dead=dead, reason=reason, **PAST)


async def found(pool: Any, **wanted: Any) -> list[int]:
    """The seqs of the rows that a filter finds, as many as it counts."""
    seqs = [row.seq for row in await find_rows(pool, Filter(**wanted))]
    counted = await count_rows(pool, Filter(**wanted))
    assert counted == len(seqs)
    return seqs


EVENTS: dict[int, dict[str, Any]] = {
    5: {"owner": "a", "wire_id": "w"},
    2: {"owner": "a", "user_id": "v"},
    8: {"owner": "b", "wire_id": "x" * 256},
    1: {"owner": "a"},
    4: {"owner": "b", "wire_id": "w"},
    7: {"owner": "b", "wire_id": "x" * 255},
    3: {"owner": "b", "name": "m"},
    6: {"owner": "a", "inngest_id": ULID},
}
FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [8, 7, 6, 5, 4, 3, 2, 1]),
    ({"limit": 2}, [8, 7]),
    ({"ids": ("e-2", "e-7", "e-9")}, [7, 2]),
    ({"ids": ("e-2", "e-7"), "owner": "a"}, [2]),
    ({"ids": ("e-2", "e-7", "e-3"), "limit": 2}, [7, 3]),
    ({"ids": ("e-\x00",)}, []),
    ({"ids": ()}, []),
    ({"owner": "a"}, [6, 5, 2, 1]),
    ({"user_id": "v"}, [2]),
    ({"name": "m"}, [3]),
    ({"owner": "a", "alias": "w"}, [5]),
    ({"owner": "b", "alias": "w"}, [4]),
    ({"alias": "w"}, []),
    ({"alias": ULID}, [6]),
    ({"owner": "b", "alias": ULID}, []),
    ({"owner": "b", "alias": "x" * 255}, [7]),
    ({"owner": "b", "alias": "x" * 256}, []),
    ({"owner": "b", "alias": "\x00"}, []),
    ({"older_than_seconds": 1000.0}, [5, 4, 3, 2, 1]),
    ({"since_ms": START_MS + 3000}, [8, 7, 6, 5, 4, 3]),
    ({"until_ms": START_MS + 3000}, [2, 1]),
    ({"before_seq": 3}, [2, 1]),
    ({"after_seq": 6}, [8, 7]),
    ({"owner": "a", "after_seq": 2}, [6, 5]),
    ({"id_prefix": "e-3"}, [3]),
    ({"id_prefix": "e-"}, [8, 7, 6, 5, 4, 3, 2, 1]),
    ({"id_prefix": "e"}, [8, 7, 6, 5, 4, 3, 2, 1]),
    ({"id_prefix": "e-", "name": "m"}, [3]),
    ({"id_prefix": "e-", "limit": 2}, [8, 7]),
    ({"id_prefix": "e-", "ids": ("e-3", "e-9")}, [3]),
    ({"id_prefix": "f", "ids": ("e-3",)}, []),
    ({"id_prefix": "\x00"}, []),
    ({"reason": "r"}, []),
]


@pytest.mark.parametrize("state", [None, State.PENDING])
@pytest.mark.parametrize(("wanted", "seqs"), FILTERS)
async def test_every_given_field_must_match(
    room: Room, pool: RoomPool, wanted: dict[str, Any], seqs: list[int], state: State | None
) -> None:
    for seq, values in EVENTS.items():
        put_event(room, seq, **values)
        room.put("ready", seq=seq, payload_bytes=1)
    room.at(1005)
    assert await found(pool, **wanted, state=state) == seqs


async def test_rows_are_found_at_their_places(room: Room, pool: RoomPool) -> None:
    put_done(room, 9, dead=False)
    put_done(room, 6)
    put_done(room, 3, "odd")
    put_done(room, 8, dead=False)
    for seq in (4, 7):
        put_event(room, seq)
        room.put("sent", seq=seq, sent_at_ms=0, first_sent_at_ms=0, **PAST)
    put_ready(room, 1)
    put_ready(room, 12)
    put_ready(room, 5, due=0)
    put_ready(room, 2, due=0, isolated=True)
    for seq in (10, 11):
        put_event(room, seq)
    arrays = {name: [0, 0] for name in ("attempts", "sends", "first_sent_at_ms")}
    arrays |= {"seqs": [10, 11], "isolated": [False, False]}
    room.put("claims", claim="c", lease_until=after(9), claimed_at_ms=0, **arrays)
    assert await found(pool) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    for state, seqs in {
        State.PENDING: [12, 5, 2, 1],
        State.DELIVERING: [11, 10],
        State.SENT: [7, 4],
        State.DELIVERED: [9, 8],
        State.DEAD: [6, 3],
    }.items():
        assert await found(pool, state=state) == seqs
        assert await found(pool, state=state, limit=1) == seqs[:1]
        assert await found(pool, state=state, after_seq=4) == [seq for seq in seqs if seq > 4]
        assert await found(pool, state=state, before_seq=6) == [seq for seq in seqs if seq < 6]
        assert await found(pool, state=state, owner="o", after_seq=0) == seqs
        assert await found(pool, state=state, ids=("e-1", "e-11")) == [
            seq for seq in seqs if seq in {1, 11}
        ]
    assert await found(pool, reason="odd") == [3]
    assert await found(pool, reason="odd", state=State.DEAD) == [3]
    assert await found(pool, reason="odd", state=State.PENDING) == []
    assert await found(pool, reason="") == []


async def test_only_pending_rows_whose_bytes_never_left_are_never_sent(
    room: Room, pool: RoomPool
) -> None:
    put_ready(room, 1)
    put_ready(room, 2, sends=1)
    put_ready(room, 3, first_sent_at_ms=1)
    put_done(room, 4)
    assert await found(pool, never_sent=True) == [1]
    assert await found(pool, never_sent=True, state=State.PENDING) == [1]


async def test_pending_rows_are_searched_from_the_marks(room: Room, pool: RoomPool) -> None:
    for seq in (1, 2, 3):
        put_ready(room, seq)
    for seq, due in ((4, 9.999), (5, 10), (6, 20)):
        put_ready(room, seq, due=due)
    for seq, due in ((7, 19.999), (8, 20), (9, 10)):
        put_ready(room, seq, due=due, isolated=True)
    room.mark(ready_from=2, due_from=after(10), isolated_from=after(20))
    assert await found(pool, state=State.PENDING) == [8, 6, 5, 3, 2]
    assert await found(pool, state=State.PENDING, after_seq=0) == [9, 8, 7, 6, 5, 4, 3, 2, 1]


async def test_claimed_and_sent_rows_are_searched_from_the_marks(
    room: Room, pool: RoomPool
) -> None:
    rest = {"claimed_at_ms": 0, "attempts": [0], "sends": [0], "first_sent_at_ms": [0]}
    for seq, lease in ((1, 9.999), (2, 10)):
        put_event(room, seq)
        one = {"claim": f"{seq}", "seqs": [seq], "isolated": [False]}
        room.put("claims", lease_until=after(lease), **one, **rest)
    for seq, sent in ((3, 99), (4, 100)):
        put_event(room, seq)
        room.put("sent", seq=seq, sent_at_ms=sent, first_sent_at_ms=0, **PAST)
    room.mark(lease_from=after(10), sent_from=100)
    assert await found(pool, state=State.DELIVERING) == [2]
    assert await found(pool, state=State.SENT) == [4]


async def test_of_the_ids_that_begin_so_the_ten_thousand_highest_are_searched(
    room: Room, pool: RoomPool
) -> None:
    room.run("SET LOCAL enable_indexscan = on")
    room.run(
        "INSERT INTO outbox (seq, event_id, name, owner, user_id, accepted_at_ms, payload)"
        " SELECT n, 'p' || n, n, 'o', 'u', 0, 'x' FROM generate_series(10000, 20000) AS n"
    )
    room.run(
        "INSERT INTO outbox_ready (seq, payload_bytes)"
        " SELECT n, 1 FROM generate_series(10000, 20000) AS n"
    )
    put_event(room, 9, event_id="q")

    async def found_names(*names: int) -> list[int]:
        pages = [await find_rows(pool, Filter(id_prefix="p", name=f"{one}")) for one in names]
        return [row.seq for page in pages for row in page]

    assert await found_names(20000, 10001, 10000) == [20000, 10001]


def reads(room: Room, table: str, **wanted: Any) -> int:
    """How often the search for the two newest of these rows looks into a table."""
    given = Filter(**wanted, limit=2)
    plan = explained(room.connection, rows.rows_statement(given), rows.filter_values(given))
    return max(one["Actual Loops"] for one in nodes(plan) if one.get("Relation Name") == table)


def test_the_events_of_a_place_are_read_until_there_are_as_many_as_wanted(room: Room) -> None:
    for seq in range(30):
        put_ready(room, seq)
    assert reads(room, "outbox_p0", state=State.PENDING) == 2


def test_only_ids_that_begin_so_are_read(room: Room) -> None:
    for seq in range(30):
        put_ready(room, seq)
    assert reads(room, "outbox_p0", id_prefix="e-2") == 11


ANYWHERE = ("ROWS", "COUNT")
IN_RANGE = ("ROWS_PENDING_IN_RANGE", "COUNT_PENDING_IN_RANGE")
STATEMENTS: list[tuple[dict[str, Any], tuple[str, str] | State]] = [
    ({}, ANYWHERE),
    ({"id_prefix": "p"}, ("ROWS_OF_PREFIX", "COUNT")),
    ({"id_prefix": "p", "ids": ("i",)}, ANYWHERE),
    ({"ids": ("i",)}, ANYWHERE),
    ({"ids": ("i",), "state": State.DEAD}, ANYWHERE),
    ({"owner": "o"}, ANYWHERE),
    ({"owner": "o", "after_seq": 1, "state": State.DEAD}, ANYWHERE),
    ({"owner": "o", "after_seq": 1, "state": State.PENDING}, ANYWHERE),
    ({"reason": "r"}, State.DEAD),
    ({"reason": "r", "state": State.SENT}, State.SENT),
    ({"state": State.SENT}, State.SENT),
    ({"state": State.PENDING}, State.PENDING),
    ({"state": State.PENDING, "owner": "o"}, State.PENDING),
    ({"state": State.DEAD, "after_seq": 1}, State.DEAD),
    ({"state": State.DEAD, "id_prefix": "p"}, State.DEAD),
    ({"state": State.PENDING, "after_seq": 1}, IN_RANGE),
]


@pytest.mark.parametrize(("wanted", "begins"), STATEMENTS)
def test_a_search_begins_where_fewest_rows_are_read(
    wanted: dict[str, Any], begins: tuple[str, str] | State
) -> None:
    if isinstance(begins, State):
        statements = (rows.ROWS_IN_STATE[begins], rows.COUNT_IN_STATE[begins])
    else:
        statements = (getattr(rows, begins[0]), getattr(rows, begins[1]))
    assert rows.rows_statement(Filter(**wanted)) is statements[0]
    assert rows.count_statement(Filter(**wanted)) is statements[1]
