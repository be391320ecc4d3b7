"""A row's way through the tables of an SQLite outbox: what each move keeps and what it adds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.model import Batch, Dead, Isolated, Retry
from tests.support.sqlite_room import START_MS, Room
from tests.support.storage import event

SIZE = 200


@pytest.fixture
def room() -> Room:
    return Room()


def filled(room: Room, count: int) -> Batch:
    """So many rows of an owner each, under one claim."""
    for at in range(count):
        room.append(event(f"u-{at}"))
    batch = room.claim(lease_seconds=30.0)
    assert batch
    return batch


def claimed(seq: int, batch: Batch, **changes: Any) -> dict[str, Any]:
    new = {"seq": seq, "payload_bytes": SIZE, "fair_share": 0, "isolated": 0, "attempts": 0}
    lease = {"claimed_at_ms": START_MS, "lease_until_ms": START_MS + 30_000}
    return {**new, **lease, "sends": 0, "claim": batch.claim, **changes}


def waiting(seq: int, **changes: Any) -> dict[str, Any]:
    marks = dict.fromkeys(
        ("due_at_ms", "delayed", "fair_share", "isolated", "attempts", "sends"), 0
    )
    return {"seq": seq, "payload_bytes": SIZE, **marks, **changes}


def test_a_new_row_waits_and_a_claim_takes_it_under_a_lease(room: Room) -> None:
    room.append(event(), event())
    assert room.row(1) == waiting(1)
    batch = room.claim(1, lease_seconds=30.0)
    assert batch
    assert room.places() == {1: "claims", 2: "ready"}
    assert room.row(1) == claimed(1, batch)


def test_a_claim_gives_all_that_was_accepted_of_an_event(room: Room) -> None:
    plain = event("u-1")
    odd = msgspec.structs.replace(event("u-2"), meta=Meta("w", "branch", trace="t"))
    room.append(plain)
    room.append(odd)
    batch = room.claim()
    assert batch
    first, second = batch.entries
    assert msgspec.structs.astuple(first) == (
        *(1, plain.id, plain.accepted_at_ms, "u-1"),
        *(0, False, None, 0, Meta()),
    )
    assert msgspec.structs.astuple(second) == (
        *(2, odd.id, odd.accepted_at_ms, "u-2"),
        *(0, False, None, 0, odd.meta),
    )
    assert batch.payloads == plain.payload + b"," + odd.payload


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("sends", 3, "sends"),
        ("attempts", 1, "attempts"),
        ("attempts", 3, "attempts"),
        ("isolated", 1, "isolated"),
        ("first_sent_at_ms", 7, "first_sent_at_ms"),
    ],
)
def test_a_claim_gives_what_a_row_has_been_through(
    room: Room, column: str, value: int, field: str
) -> None:
    room.append(event())
    sends = int(column == "first_sent_at_ms")  # a first sending is known of rows that were sent
    room.connection.execute("UPDATE outbox_ready SET sends = ?", (sends,))
    room.connection.execute(f"UPDATE outbox_ready SET {column} = {value}")
    batch = room.claim()
    assert batch
    assert getattr(batch.entries[0], field) == value


@pytest.mark.parametrize("column", ["trace", "moved_id", "wire_id", "environment"])
def test_a_claim_gives_each_odd_column_alone(room: Room, column: str) -> None:
    room.append(event())
    room.connection.execute(f"UPDATE outbox SET meta = json_object('{column}', 'odd')")
    batch = room.claim()
    assert batch
    assert getattr(batch.entries[0].meta, column) == "odd"


def test_each_row_of_a_settlement_goes_its_own_way_and_the_others_stay(room: Room) -> None:
    batch = filled(room, 7)
    other = Retry(3, 5.0, attempts=4, isolated=True, note="HTTP 500")
    room.at(2000)
    stale = room.settle(
        batch.claim,
        delivered=[1],
        sent=[2],
        retry=[other, Retry(4, 0, attempts=0, isolated=False)],
        dead=[Dead(5, 6, "rejected", "no such thing")],
    )
    assert stale == 0
    ended = {"isolated": 0, "attempts": 1, "sends": 1, "first_sent_at_ms": START_MS}
    assert room.row(1) == {"seq": 1, "dead": 0, "settled_at_ms": START_MS + 2000, **ended}
    assert room.row(2) == {"seq": 2, "sent_at_ms": START_MS + 2000, **ended}
    tried = {"sends": 1, "first_sent_at_ms": START_MS}
    history = json.dumps([{"at": START_MS + 2000, "note": "HTTP 500"}], separators=(",", ":"))
    assert room.row(3) == waiting(
        3, due_at_ms=START_MS + 7000, isolated=1, attempts=4, history=history, **tried
    )
    assert room.row(4) == waiting(4, **tried)
    words = {"reason": "rejected", "detail": "no such thing"}
    assert room.row(5) == {
        "seq": 5,
        "dead": 1,
        "settled_at_ms": START_MS + 2000,
        **ended,
        "attempts": 6,
        **words,
    }
    for seq in (6, 7):
        assert room.row(seq) == claimed(seq, batch)
    assert room.counts.total == 4  # two wait, two are claimed


PAST = {"attempts": 2, "sends": 5, "first_sent_at_ms": 77, "history": "[1]", "isolated": 1}


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        ({"delivered": [1]}, {**PAST, "attempts": 3, "sends": 6}),
        ({"sent": [1]}, {**PAST, "attempts": 3, "sends": 6}),
        ({"dead": [Dead(1, 9, "r", "d")]}, {**PAST, "attempts": 9, "sends": 6}),
        ({"retry": [Retry(1, 0, 9, isolated=True)]}, {**PAST, "attempts": 9, "sends": 6}),
        (None, {**PAST, "sends": 6}),  # its lease ends
        ("nobody received it", PAST),
    ],
)
def test_a_row_keeps_its_past_on_each_way_out_of_a_claim(
    room: Room, named: Any, kept: dict[str, Any]
) -> None:
    room.append(event())
    room.connection.execute(
        "UPDATE outbox_ready SET fair_share = 1, attempts = 2, sends = 5, first_sent_at_ms = 77,"
        " history = '[1]', isolated = 1"
    )
    batch = room.claim(lease_seconds=30.0, wanted=named != "nobody received it")
    assert room.row(1) == claimed(1, batch, fair_share=1, **PAST)  # type: ignore[arg-type]
    if named == "nobody received it" or named is None:
        room.at(0 if named else 30_000).claim(isolated=Isolated.NONE)
        named = {}
    else:
        assert room.settle(batch.claim, **named) == 0  # type: ignore[union-attr]
    row = room.row(1)
    assert {name: row[name] for name in PAST} == kept
    assert row.get("fair_share", 1) == 1
    assert row.get("payload_bytes", SIZE) == SIZE
    assert room.claims.owners == {}


def test_a_history_keeps_its_newest_notes(room: Room) -> None:
    batch = filled(room, 1)
    notes = json.dumps(list(range(20)))
    room.connection.execute("UPDATE outbox_claims SET history = ?", (notes,))
    room.settle(batch.claim, retry=[Retry(1, 0, 1, isolated=False, note="new")])
    history = json.loads(room.row(1)["history"])
    assert history == [*range(1, 20), {"at": START_MS, "note": "new"}]


@pytest.mark.parametrize("named", ["delivered", "sent", "retry", "dead"])
@pytest.mark.parametrize("seqs", [[1], [1, 2, 3], [1, 3, 5, 7, 9]])
def test_a_settlement_moves_only_rows_under_its_own_claim(
    room: Room, named: str, seqs: list[int]
) -> None:
    room.append(*(event() for _ in range(9)))
    mine, other = room.claim(2), room.claim(7)
    assert mine
    assert other
    rows: dict[str, Any] = {
        "delivered": seqs,
        "sent": seqs,
        "retry": [Retry(seq, 0, 0, isolated=False) for seq in seqs],
        "dead": [Dead(seq, 0, "r", "d") for seq in seqs],
    }
    held = [seq for seq in seqs if seq <= 2]
    assert room.settle(mine.claim, **{named: rows[named]}) == len(seqs) - len(held)
    left = {seq for seq, place in room.places().items() if place == "claims"}
    assert left == set(range(1, 10)) - set(held)
    assert room.settle(mine.claim, **{named: rows[named]}) == len(seqs)
    assert room.settle("nobody", **{named: rows[named]}) == len(seqs)
    assert {seq for seq, place in room.places().items() if place == "claims"} == left


def test_an_empty_settlement_moves_nothing(room: Room) -> None:
    batch = filled(room, 1)
    assert room.settle(batch.claim) == 0
    assert room.places() == {1: "claims"}


@pytest.mark.parametrize(
    ("delay", "due"), [(0.0, 0), (-1.0, 0), (0.5, START_MS + 500), (60, START_MS + 60_000)]
)
def test_a_row_is_due_after_its_delay(room: Room, delay: float, due: int) -> None:
    batch = filled(room, 1)
    room.put_back(batch, 1, delay=delay)
    assert room.row(1)["due_at_ms"] == due


def test_what_a_hang_settled_after_all_lost_no_lease_once(room: Room) -> None:
    batch = filled(room, 4)
    assert room.settle(batch.claim, wanted=False, delivered=[1]) == 0
    assert room.settle(batch.claim, wanted=False, dead=[Dead(2, 1, "r", "d")]) == 0
    assert room.settle(batch.claim, delivered=[1, 2, 3]) == 0
    assert room.settle(batch.claim, delivered=[1, 2, 3]) == 3
    # What was not settled then, and is not under the claim now, lost its lease.
    assert room.settle(batch.claim, wanted=False, delivered=[4]) == 0
    assert room.settle("another", delivered=[4]) == 1
    # A row that is settled a second time after all counts once.
    assert room.settle(batch.claim, delivered=[4]) == 0
