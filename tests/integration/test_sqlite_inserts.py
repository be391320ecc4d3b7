"""Appends to an SQLite outbox: what is stored of an event, its number, and one event for a key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from service.errors import IdempotencyKeyReusedError
from service.outbox.event import Event, Meta, encode_meta
from service.outbox.keys import IdempotencyKey
from service.outbox.sqlite import new_rows
from service.outbox.sqlite.appends import Append
from service.outbox.sqlite.new_rows import next_seq
from tests.support.sqlite_room import IDS, Room
from tests.support.storage import event


def key(name: str = "k", digest: bytes = b"1", lifetime: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, digest * 32, lifetime)


def odd(**changes: Any) -> Event:
    return msgspec.structs.replace(event(), **changes)


def stored(one: Event, seq: int, **changes: Any) -> dict[str, Any]:
    always = {"seq": seq, "event_id": one.id, "name": one.name, "owner": one.owner}
    also = {"user_id": one.user_id, "accepted_at_ms": one.accepted_at_ms, "payload": one.payload}
    return {**always, **also, **changes}


def test_an_event_is_stored_as_it_is_and_its_receipt_names_it() -> None:
    room = Room()
    plain = odd(owner="o", user_id="u", name="n/m")
    [receipt] = room.append(plain)
    assert room.row(1, "outbox") == stored(plain, 1)
    assert msgspec.structs.astuple(receipt) == (
        *(plain.id, 1, plain.accepted_at_ms, IDS),
        *(False, None),
    )
    named = odd(meta=Meta("w", "branch", trace="t"))
    keyed = key("k-1", b"\xab")
    [receipt] = room.append(named, keys=[keyed])
    also = {"meta": '{"wire_id":"w","environment":"branch","trace":"t"}'}
    keys = {"idempotency_key": "k-1", "idempotency_digest": "ab" * 32}
    assert room.row(2, "outbox") == stored(named, 2, **also, **keys)
    assert (receipt.seq, receipt.replayed, receipt.ids) == (2, False, IDS)


def test_rows_of_one_statement_keep_their_own_values_and_nulls() -> None:
    room = Room()
    calls = [
        Append((odd(meta=Meta("w")), odd()), ()),
        Append((odd(),), (key("a"),)),
        Append((odd(meta=Meta(environment="e")), odd()), (None, key("b"))),
    ]
    room.commit(room.appends, *calls)
    rows = [room.row(seq, "outbox") for seq in range(1, 6)]
    metas = [row.get("meta") for row in rows]
    assert metas == ['{"wire_id":"w"}', None, None, '{"environment":"e"}', None]
    assert [row.get("idempotency_key") for row in rows] == [None, None, "a", None, "b"]
    digests = [row.get("idempotency_digest") for row in rows]
    assert digests == [None, None, "31" * 32, None, "31" * 32]


def test_events_for_one_environment_follow_each_other() -> None:
    room = Room()
    calls = [Append((odd(meta=Meta(environment=name)),), ()) for name in ("b", None, "a", "b")]
    results = room.commit(room.appends, *calls)
    assert [receipt.seq for [receipt] in results] == [3, 1, 2, 4]
    assert [receipt.event_id for [receipt] in results] == [call.events[0].id for call in calls]
    for seq, name in ((1, None), (2, "a"), (3, "b"), (4, "b")):
        assert room.row(seq, "outbox").get("meta") == encode_meta(Meta(environment=name))


@pytest.mark.parametrize(
    ("changes", "express", "marks"),
    [
        ({}, False, {"due_at_ms": 0, "held": 0, "express": 0}),
        ({"due_at_ms": 77}, False, {"due_at_ms": 77, "held": 1, "express": 0}),
        ({"due_at_ms": 1}, False, {"due_at_ms": 1, "held": 1, "express": 0}),
        ({}, True, {"due_at_ms": 0, "held": 0, "express": 1}),
    ],
)
def test_a_row_waits_as_its_sender_and_its_owners_share_say(
    changes: dict[str, int], *, express: bool, marks: dict[str, int]
) -> None:
    room = Room()
    plain, one = odd(), odd(meta=Meta(**changes))
    room.commit(room.appends, Append((plain,), ()), Append((one,), (), express=express))
    first, second = room.row(1), room.row(2)
    assert {name: second[name] for name in marks} == marks
    assert {name: first[name] for name in marks} == dict.fromkeys(marks, 0)
    assert second["payload_bytes"] == len(one.payload)
    assert room.claims.picker.may_have_express is express


@pytest.mark.parametrize("due_at_ms", [0, 9])
def test_more_rows_than_one_statement_takes_are_numbered_in_their_order(due_at_ms: int) -> None:
    room = Room()
    events = [odd(meta=Meta(due_at_ms=due_at_ms)) for _ in range(2 * new_rows._MAX_ROWS + 3)]
    statements: list[str] = []
    room.connection.set_trace_callback(statements.append)
    receipts = room.append(*events)
    room.connection.set_trace_callback(None)
    assert [receipt.seq for receipt in receipts] == list(range(1, len(events) + 1))
    for seq, one in enumerate(events, 1):
        assert room.row(seq, "outbox") == stored(
            one, seq, **({"meta": '{"due_at_ms":9}'} if due_at_ms else {})
        )
    assert len(room.places()) == len(events)
    assert sum("INSERT INTO outbox (" in one for one in statements) == 3


def test_numbers_go_on_and_none_is_given_twice() -> None:
    room = Room()
    assert next_seq(room.connection) == 1
    assert [receipt.seq for receipt in room.append(odd(), odd())] == [1, 2]
    assert [receipt.seq for receipt in room.append(odd())] == [3]
    assert next_seq(room.connection) == 4
    room.connection.executescript(
        "DELETE FROM outbox WHERE seq = 3; DELETE FROM outbox_ready WHERE seq = 3"
    )
    assert [receipt.seq for receipt in room.append(odd())] == [4]
    room.connection.execute("UPDATE outbox_meta SET last_seq = 9")
    room.start()
    assert [receipt.seq for receipt in room.append(odd())] == [10]
    room.start()
    assert [receipt.seq for receipt in room.append(odd())] == [11]


def test_a_key_gives_its_first_event_again_and_stores_nothing() -> None:
    room = Room()
    first = odd()
    room.append(odd())
    [receipt] = room.append(first, keys=[key()])
    [again] = room.append(odd(), keys=[key()])
    assert msgspec.structs.astuple(again)[:5] == (first.id, 2, first.accepted_at_ms, IDS, True)
    assert len(room.places()) == 2
    assert room.counts.total == 2
    assert room.counts.total_bytes == 400
    assert room.appends.appended == 2
    assert room.recorder.counted["accepted"] == 2
    assert room.row(2, "outbox")["event_id"] == receipt.event_id


def test_a_keys_first_event_keeps_the_ulid_that_it_brought() -> None:
    room = Room()
    room.append(odd(), keys=[key()])
    room.connection.execute("UPDATE outbox SET meta = json_object('moved_id', 'ulid')")
    [again] = room.append(odd(), keys=[key()])
    assert again.inngest_id == "ulid"


def test_a_key_is_its_owners_alone() -> None:
    room = Room()
    for owner in ("a", "b"):
        [receipt] = room.append(odd(owner=owner), keys=[key()])
        assert not receipt.replayed
    [other] = room.append(odd(owner="a"), keys=[key("k-2")])
    assert not other.replayed
    assert [room.append(odd(owner=one), keys=[key()])[0].seq for one in ("a", "b")] == [1, 2]


def test_one_transaction_uses_a_key_once() -> None:
    room = Room()
    calls = [Append((odd(),), (key(),)) for _ in range(3)]
    other = Append((odd(),), (key("k-2"),))
    room.counts.enter("u-1", 4, 800)
    results = room.commit(room.appends, calls[0], other, *calls[1:])
    assert [(receipt.seq, receipt.replayed) for [receipt] in results] == [
        (1, False),
        (2, False),
        (1, True),
        (1, True),
    ]
    assert room.counts.total == room.appends.appended == 2


def test_a_call_stores_what_is_new_of_it() -> None:
    room = Room()
    room.append(odd(), keys=[key("old")])
    events = [odd(), odd(), odd()]
    receipts = room.append(*events, keys=[None, key("old"), key("new")])
    assert [(one.seq, one.replayed) for one in receipts] == [(2, False), (1, True), (3, False)]
    assert [room.row(seq, "outbox")["event_id"] for seq in (2, 3)] == [events[0].id, events[2].id]
    assert room.row(3, "outbox")["idempotency_key"] == "new"
    assert "idempotency_key" not in room.row(2, "outbox")
    assert (room.counts.total, room.counts.total_bytes, room.appends.appended) == (3, 600, 3)


def test_a_key_with_another_digest_refuses_the_whole_call_and_no_other() -> None:
    room = Room()
    room.append(odd(), keys=[key()])
    refused = Append((odd(), odd()), (key("k-2"), key(digest=b"2")))
    fine = Append((odd(),), ())
    room.counts.enter("u-1", 3, 600)
    results = room.commit(room.appends, refused, fine)
    assert isinstance(results[0], IdempotencyKeyReusedError)
    assert results[1][0].seq == 2
    assert len(room.places()) == 2
    assert (room.counts.total, room.counts.total_bytes, room.appends.appended) == (2, 400, 2)


def test_a_key_whose_lifetime_is_over_is_free_and_its_event_loses_it() -> None:
    room = Room()
    old = odd(accepted_at_ms=room.clock.ms)
    room.append(old, keys=[key(lifetime=5.0)])
    room.append(odd(), keys=[key("k-2")])
    assert room.at(5000).append(odd(), keys=[key(lifetime=5.0)])[0].replayed
    [receipt] = room.at(5001).append(odd(), keys=[key(lifetime=5.0)])
    assert (receipt.seq, receipt.replayed) == (3, False)
    assert "idempotency_key" not in room.row(1, "outbox")
    assert "idempotency_digest" not in room.row(1, "outbox")
    assert room.row(2, "outbox")["idempotency_key"] == "k-2"
    assert room.row(3, "outbox")["idempotency_key"] == "k"


def test_a_rollback_gives_the_room_of_all_events_back() -> None:
    room = Room()
    room.counts.enter("u-1", 3, 600)
    room.counts.enter("u-2", 1, 200)
    one, two = Append((event("u-1"), event("u-1")), ()), Append((event("u-2"),), ())
    room.appends.failed([one, two])
    assert (room.counts.total, room.counts.total_bytes) == (1, 200)


def test_a_group_is_observed_with_all_its_events() -> None:
    room, seen = Room(), []
    room.recorder.observe = lambda name, value: seen.append((name, value))  # type: ignore[method-assign]
    room.append(odd(), odd(), keys=[key("a"), None])
    room.append(odd(), odd(), keys=[key("a"), None])
    assert seen == [("group_events", 2)] * 2
    assert room.appends.appended == 3
    assert room.appends.synced
