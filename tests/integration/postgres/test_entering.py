"""How an event that an application appended in SQL enters its lane, and whether there is room."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.support.postgres_room import Room, after
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer

OWNER = "database u-1"
HEAVY = 20
APPEND = "SELECT outbox.append('n', '{}', 'u-1', send_at => %s::bigint * 1000)"
NOW = "SELECT floor(extract(epoch FROM pg_catalog.clock_timestamp()))::bigint"


def server_now(room: Room) -> int:
    """Seconds since 1970 by the server's clock, which the functions read."""
    [(now,)] = room.run(NOW)
    return int(now)


def enter(room: Room, *send_at: int) -> list[dict[str, Any]]:
    """Append events to be sent at these seconds, and let them enter; the rows of the lane."""
    for at in send_at or (0,):
        room.run(APPEND, [at])
    room.run("SET CONSTRAINTS ALL IMMEDIATE")
    rows = room.run("SELECT extract(epoch FROM due_at)::float8, held FROM outbox_ready ORDER BY 1")
    return [{"due": due, "held": held} for due, held in rows]


def test_a_commit_tells_those_who_listen(postgres: PostgresServer) -> None:
    with new_outbox(postgres, "told") as url, psycopg.connect(url) as connection:
        connection.execute("LISTEN outbox")
        connection.commit()
        connection.execute("SELECT outbox.append('n', '{}'), outbox.append('n', '{}')")
        connection.commit()
        [told] = connection.notifies(timeout=30, stop_after=1)
        assert (told.channel, told.payload) == ("outbox", "application rows")


def mark(room: Room, due_from: int) -> None:
    room.mark(due_from="-infinity")
    room.run("UPDATE outbox_marks SET due_from = to_timestamp(%s)", [due_from])


def test_an_event_is_due_at_once_and_counted(room: Room) -> None:
    before = server_now(room)
    mark(room, before - 999)
    [row] = enter(room)
    assert before <= row["due"] <= server_now(room) + 1
    assert row["held"] is False
    [(size,)] = room.run("SELECT octet_length(payload) FROM outbox")
    [ready] = room.rows("ready").values()
    assert (ready["payload_bytes"], "express_seq" in ready) == (size, False)
    names = ("owners", "pending", "stored", "stored_bytes")
    [changed] = room.table("changes")
    assert [changed[name] for name in names] == [[OWNER], [1], [1], [size]]


def test_an_event_enters_behind_the_mark(room: Room) -> None:
    later = server_now(room) + 3600
    mark(room, later)
    assert enter(room) == [{"due": later, "held": False}]


@pytest.mark.parametrize(("mark_after", "held"), [(-1, True), (0, False), (1, False)])
def test_an_event_is_held_until_a_time_behind_the_mark(
    room: Room, mark_after: int, *, held: bool
) -> None:
    later = server_now(room) + 3600
    mark(room, later + mark_after)
    assert enter(room, later) == [{"due": later + max(0, mark_after), "held": held}]


def test_each_event_has_its_own_time(room: Room) -> None:
    later = server_now(room) + 3600
    times = (later + 2, later, later + 1)
    assert enter(room, *times) == [{"due": due, "held": True} for due in sorted(times)]


@pytest.mark.parametrize(
    ("mine", "flood", "total", "is_express"),
    [
        (0, 30, 59, True),
        (0, 30, 60, False),
        (0, 30, 61, False),
        (19, 30, 59, True),
        (20, 30, 59, False),
        (0, HEAVY, 39, True),
        (0, HEAVY - 1, 1, False),
        (10, 30, 70, False),
    ],
)
def test_an_event_of_an_owner_with_few_rows_is_express_beside_a_flood(
    room: Room, mine: int, flood: int, total: int, *, is_express: bool
) -> None:
    room.run("UPDATE outbox_meta SET heavy_rows = %s, pending = %s", [HEAVY, total])
    for owner, rows in (("flood", flood), (OWNER, mine)):
        room.put("counts", owner=owner, pending=rows, stored=rows, stored_bytes=rows)
    enter(room)
    [row] = room.table("ready")
    assert row["express_seq"] == (row["seq"] if is_express else None)


@pytest.mark.parametrize(
    ("change", "folded", "looks"),
    [(320, 0, True), (256, 0, False), (320, 63, True), (320, 64, False), (321, 0, False)],
)
def test_an_application_looks_for_changes_to_fold_now_and_then(
    room: Room, change: int, folded: int, *, looks: bool
) -> None:
    room.run("UPDATE outbox_meta SET changes_folded = %s", [folded])
    room.run("SELECT setval('outbox_changes_no_seq', %s, false)", [change])
    enter(room)
    noted = [row["no"] for row in room.table("changes") if row["writers"] is not None]
    assert noted == ([change + 1] if looks else [])


def held(room: Room, *, changed: bool) -> None:
    """Owner `a` has 3 rows of 30 bytes of all 10 of 100; with changes 5 of 50, of 13 of 130."""
    room.run("UPDATE outbox_meta SET changes_folded = 1, pending = 10, stored_bytes = 100")
    room.put("counts", owner="a", pending=3, stored=3, stored_bytes=30)
    room.put("changes", owners=["a"], pending=[50], stored_bytes=[500])
    if changed:
        room.put("changes", owners=["a", "b"], pending=[2, 1], stored_bytes=[20, 10])


# A limit, the value that refuses and the one that does not: with the changes and without them.
LIMITS = [
    ("max_pending_per_user", (5, 6), (3, 4), "too_many_pending: this owner has too many events"),
    ("max_pending", (13, 14), (10, 11), "outbox_full: too many events wait"),
    ("max_bytes_per_user", (56, 57), (36, 37), "too_many_pending: the stored events of this owner"),
    ("max_bytes", (136, 137), (106, 107), "outbox_full: the stored events have reached"),
]


@pytest.mark.parametrize(("name", "with_changes", "without", "said"), LIMITS)
@pytest.mark.parametrize("changed", [False, True])
def test_an_event_is_refused_where_a_limit_is_reached(
    room: Room,
    name: str,
    with_changes: tuple[int, int],
    without: tuple[int, int],
    said: str,
    *,
    changed: bool,
) -> None:
    held(room, changed=changed)
    refuses, admits = with_changes if changed else without
    ask = "SELECT outbox_check_room('a', 7)"
    room.run(f"UPDATE outbox_meta SET {name} = %s", [admits])
    room.run(ask)
    room.run(f"UPDATE outbox_meta SET {name} = %s", [refuses])
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match=said):
        room.run(ask)


def test_an_owner_has_what_is_carried_as_well(room: Room) -> None:
    room.put("counts", owner="a", pending=3, stored=9, stored_bytes=30)
    room.put("counts", owner="b", pending=4, stored=9, stored_bytes=40)
    arrays = {"owners": ["x", "a"], "pending": [9, 2], "stored": [9, 9], "stored_bytes": [90, 20]}
    room.put("carried", since=after(0), **arrays)
    wanted = {"a": (5, 50), "b": (4, 40), "x": (9, 90), "nobody": (0, 0)}
    for owner, found in wanted.items():
        assert room.run("SELECT * FROM outbox_counts_of(%s)", [owner]) == [found]


def append_as(room: Room, user: str, **named: str) -> str:
    """The id of a user's event with an id or a key."""
    [(name, value)] = named.items()
    [(event_id,)] = room.run(f"SELECT outbox.append('n', '{{}}', %s, {name} => %s)", [user, value])
    return str(event_id)


def test_a_key_gives_its_owners_event_again(room: Room) -> None:
    pairs = [("u-1", "k"), ("u-2", "a"), ("u-2", "k")]
    ids = [append_as(room, user, idempotency_key=key) for user, key in pairs]
    assert len(set(ids)) == 3
    assert append_as(room, "u-2", idempotency_key="k") == ids[2]


def test_after_a_day_an_id_is_free_and_no_other_key_is(room: Room) -> None:
    first, other = (append_as(room, user, id="w") for user in ("u-1", "u-2"))
    kept = append_as(room, "u-1", idempotency_key="k")
    assert append_as(room, "u-1", id="w") == first
    room.run("UPDATE outbox SET accepted_at_ms = accepted_at_ms - 86400001")
    assert append_as(room, "u-1", id="w") not in {first, other, kept}
    keyed = room.run("SELECT event_id FROM outbox WHERE idempotency_key IS NOT NULL")
    assert {other, kept} < {event_id for (event_id,) in keyed}
    assert first not in {event_id for (event_id,) in keyed}
