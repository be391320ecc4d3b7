"""What one statement stores on PostgreSQL of the calls of a flush, and what it finds stored."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest

from service.outbox.event import Event, Meta
from service.outbox.keys import IdempotencyKey
from service.outbox.postgres.appends import FIND_STORED
from tests.support.postgres_room import START_MS, Room, after, made_call
from tests.support.storage import event

ONE, OTHER = b"1" * 32, b"2" * 32


def key(name: str, digest: bytes = ONE, lifetime: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, digest, lifetime)


def now(owner: str = "u-1", **changes: Any) -> Event:
    """An event that is accepted at the room's start."""
    return msgspec.structs.replace(event(owner), accepted_at_ms=START_MS, **changes)


def keys_of(room: Room) -> dict[int, str]:
    """Which rows have a key."""
    rows = room.rows("")
    return {seq: row["idempotency_key"] for seq, row in rows.items() if "idempotency_key" in row}


def test_an_event_is_stored_as_it_was_given(room: Room) -> None:
    given = now(meta=Meta("w", "e", trace="t"))
    call = made_call(given, keys=[key("k")])
    assert room.store(call) == [(given.id, 1)]
    assert room.rows("") == {
        1: {
            "accepted_at_ms": START_MS,
            "event_id": given.id,
            "name": given.name,
            "owner": "u-1",
            "user_id": "u-1",
            "trace": "t",
            "idempotency_key": "k",
            "idempotency_digest": ONE,
            "wire_id": "w",
            "environment": "e",
            "payload": given.payload,
        }
    }
    new = {"held": False, "attempts": 0, "sends": 0, "isolated": False}
    assert room.rows("ready") == {1: {**new, "payload_bytes": len(given.payload)}}


def test_the_counts_of_each_owner_grow_by_its_rows(room: Room) -> None:
    one, two, three = now("a"), now("b"), now("a")
    room.store(made_call(one), made_call(two), made_call(three))
    [changed] = room.table("changes")
    names = ("owners", "pending", "stored", "stored_bytes")
    found = sorted(zip(*(changed[name] for name in names), strict=True))
    size = len(one.payload) + len(three.payload)
    assert found == [("a", 2, 2, size), ("b", 1, 1, len(two.payload))]
    assert (changed["delivered"], changed["dead"], changed["sent"]) == (0, 0, 0)


def test_seqs_follow_the_calls_whatever_their_keys_are(room: Room) -> None:
    events = [now(), now(), now()]
    calls = [made_call(one, keys=[key(name)]) for one, name in zip(events, "cab", strict=True)]
    assert sorted(room.store(*calls)) == sorted((one.id, at + 1) for at, one in enumerate(events))
    assert keys_of(room) == {1: "c", 2: "a", 3: "b"}


@pytest.mark.parametrize(
    ("due", "due_from", "lane"),
    [
        (None, 0, None),
        (99, 0, None),
        (100, 0, None),
        (100.125, 0, 100.125),
        (100.125, 150, None),
        (150, 150, None),
        (150.125, 150, 150.125),
    ],
)
def test_an_event_is_held_until_a_later_time_than_now_and_the_mark(
    room: Room, due: float | None, due_from: float, lane: float | None
) -> None:
    room.at(100).mark(due_from=after(due_from))
    due_at_ms = 0 if due is None else START_MS + round(due * 1000)
    room.store(made_call(now(meta=Meta(due_at_ms=due_at_ms))))
    [row] = room.table("ready")
    assert (row["due_at"], row["held"]) == (lane, lane is not None)


def test_rows_of_an_express_call_are_express(room: Room) -> None:
    room.store(made_call(now()), made_call(now(), now(), express=True))
    assert [row.get("express_seq") for row in room.rows("ready").values()] == [None, 2, 3]


def test_a_key_belongs_to_its_owner(room: Room) -> None:
    room.store(made_call(now(), keys=[key("k")]))
    others = now("u-2"), now()
    calls = [made_call(one, keys=[key(name)]) for one, name in zip(others, "kl", strict=True)]
    assert len(room.store(*calls)) == 2
    assert room.store(*(made_call(now(), keys=[key(name)]) for name in "kl")) == []
    assert keys_of(room) == {1: "k", 2: "k", 3: "l"}
    assert len(room.table("changes")) == 2


def test_one_key_of_two_calls_of_a_flush_is_stored_once(room: Room) -> None:
    first = now()
    calls = [made_call(one, keys=[key("k")]) for one in (first, now())]
    assert room.store(*calls) == [(first.id, 1)]


@pytest.mark.parametrize("digest", [ONE, OTHER])
@pytest.mark.parametrize(
    ("seconds", "lifetime", "is_free"),
    [(10, 10.0, False), (10.001, 10.0, True), (99, None, False)],
)
def test_a_key_is_free_after_its_lifetime(
    room: Room, seconds: float, lifetime: float | None, digest: bytes, *, is_free: bool
) -> None:
    room.store(made_call(now(), keys=[key("k")]))
    again = room.at(seconds).store(made_call(now(), keys=[key("k", digest, lifetime)]))
    assert len(again) == is_free
    assert list(keys_of(room).values()) == ["k"]
    assert (1 in keys_of(room)) is not is_free


def test_a_call_with_a_key_of_other_data_is_refused_whole(room: Room) -> None:
    room.store(made_call(now(), keys=[key("used")]))
    room.store(made_call(now(), keys=[key("old")]))
    free = made_call(now(), keys=[key("free", lifetime=1.0)])
    keys = [key("used", OTHER), key("old", lifetime=0.5), None]
    assert room.at(1).store(made_call(now(), now(), now(), keys=keys), free) == [
        (free.events[0].id, 6)
    ]
    assert keys_of(room) == {1: "used", 2: "old", 6: "free"}


def test_a_refused_event_frees_the_keys_of_other_calls(room: Room) -> None:
    room.store(made_call(now(), keys=[key("used")]))
    room.store(made_call(now(), keys=[key("old")]))
    refused = made_call(now(), keys=[key("used", OTHER)])
    stored = made_call(now(), keys=[key("old", OTHER, 0.5)])
    assert room.at(1).store(refused, stored) == [(stored.events[0].id, 4)]
    assert keys_of(room) == {1: "used", 4: "old"}


def test_of_a_call_only_the_new_events_are_stored(room: Room) -> None:
    room.store(made_call(now(), keys=[key("k")]))
    two, three = now(), now()
    call = made_call(now(), two, three, keys=[key("k"), None, key("l")])
    assert sorted(room.store(call)) == sorted([(two.id, 3), (three.id, 4)])
    assert keys_of(room) == {1: "k", 4: "l"}


def test_a_call_is_stored_whole_or_not_at_all(room: Room) -> None:
    """Another call of the flush took a key that its snapshot did not show."""
    calls = made_call(now(), keys=[key("k")]), made_call(now(), now(), keys=[key("k"), None])
    with pytest.raises(psycopg.errors.SerializationFailure):
        room.store(*calls)


@pytest.mark.parametrize(
    ("repeated", "seconds", "is_looked_for"),
    [(True, 9999.0, True), (False, 599.999, True), (False, 600.0, False)],
)
def test_a_repeated_call_finds_its_events(
    room: Room, seconds: float, *, repeated: bool, is_looked_for: bool
) -> None:
    """Also in an older partition, while the open one is new: its index does not know them."""
    room.at(seconds).run("UPDATE outbox_partitions SET opened_at = %s", [after(0)])
    room.put("partitions", number=-1, first_seq=-1, opened_at=after(-9999))
    call = made_call(now(), now())
    room.store(call, repeated=True)
    new = made_call(now(), now())
    if is_looked_for:
        assert sorted(room.store(call, new, repeated=repeated)) == sorted(
            zip((one.id for one in new.events), (5, 6), strict=True)
        )
    else:
        with pytest.raises(psycopg.errors.SerializationFailure):
            room.store(call, repeated=repeated)


def test_what_was_stored_is_found_by_its_id_or_by_its_owners_key(room: Room) -> None:
    named, keyed = [now(), now("u-2"), now("u-2")], now("u-2")
    room.store(*(made_call(one) for one in named))
    room.store(made_call(keyed, keys=[key("k")]))
    room.store(made_call(now("u-3"), keys=[key("k")]))
    room.store(made_call(now("u-2"), keys=[key("l")]))
    room.at(5)
    given = {"ids": [named[1].id, keyed.id], "owners": ["u-2", "u-3"], "keys": ["k", "m"]}
    found = sorted(room.run(FIND_STORED, given), key=lambda row: row[4])
    rest = (START_MS, None, START_MS + 5000)
    assert found == [
        (named[1].id, "u-2", None, None, 2, *rest),
        (keyed.id, "u-2", "k", ONE, 4, *rest),
    ]
    given = {"ids": [], "owners": ["u-3"], "keys": ["k"]}
    assert [row[4] for row in room.run(FIND_STORED, given)] == [5]
