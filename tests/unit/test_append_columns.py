"""The parameters by which calls are stored on PostgreSQL."""

from __future__ import annotations

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.keys import IdempotencyKey
from service.outbox.postgres.appends import columns
from tests.support.postgres_room import made_call
from tests.support.storage import event

DIGEST = b"1" * 32


def key(name: str, lifetime: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, DIGEST, lifetime)


def test_each_event_has_its_values() -> None:
    one, two = event("a"), msgspec.structs.replace(event("b"), meta=Meta(due_at_ms=7, trace="t"))
    keyed = made_call(two, keys=[key("k", 1.5)], express=True)
    given = columns([made_call(one), keyed])
    assert given == {
        "rows": 2,
        "repeated": False,
        "positions": [1, 2],
        "calls": [None, 1],
        "ids": [one.id, two.id],
        "names": [one.name, two.name],
        "owners": ["a", "b"],
        "users": ["a", "b"],
        "accepted": [one.accepted_at_ms, two.accepted_at_ms],
        "due": [0, 7],
        "traces": [None, "t"],
        "keys": [None, "k"],
        "digests": [None, DIGEST],
        "lifetimes": [None, 1500],
        "wire_ids": [None, None],
        "environments": [None, None],
        "express": [False, True],
        "payloads": [one.payload, two.payload],
    }


def test_rows_come_in_the_order_of_their_owners_and_keys() -> None:
    """Two flushes that wait for each other's keys would be a deadlock."""
    pairs = [("b", "x"), ("a", "y"), ("b", "w"), ("a", "z")]
    calls = [made_call(event(owner), keys=[key(name)]) for owner, name in pairs]
    given = columns([*calls, made_call(event("c"))])
    assert given["keys"] == [None, "y", "z", "w", "x"]
    assert given["positions"] == [5, 2, 4, 3, 1]


@pytest.mark.parametrize(
    ("keys", "has_number"),
    [
        ([None], False),
        ([key("k")], False),
        ([key("k", 0.0)], True),
        ([None, None], True),
        ([key("k"), None], True),
    ],
)
def test_a_call_of_several_events_or_with_a_lifetime_has_a_number(
    keys: list[IdempotencyKey | None], *, has_number: bool
) -> None:
    call = made_call(*(event() for _ in keys), keys=keys)
    assert set(columns([call])["calls"]) == {0 if has_number else None}  # type: ignore[call-overload]


def test_a_key_that_is_twice_in_a_call_is_one_row() -> None:
    first, other = event(), event()
    call = made_call(first, event(), other, event(), keys=[key("k"), key("k"), key("l"), key("k")])
    given = columns([call, made_call(event(), keys=[key("k")])])
    assert (given["ids"], given["rows"]) == ([first.id, *given["ids"][1:]], 3)  # type: ignore[index]
    assert given["keys"] == ["k", "k", "l"]
    assert given["positions"] == [1, 3, 2]


def test_a_call_knows_its_size_and_its_keys() -> None:
    call = made_call(event("a", size=300), event("a", size=400), keys=[key("k"), None])
    assert call.payload_bytes == 700
    assert call.names == {("a", "k")}
