"""A row's ways out of a claim on PostgreSQL: what each keeps, what it adds, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.model import Dead, Retry
from tests.support.postgres_room import SIZE, START_MS, Room, after
from tests.support.storage import event


def filled(room: Room, count: int) -> None:
    """So many rows of an owner each, under the claim `c`."""
    room.append(*(event(f"u-{at}") for at in range(1, count + 1)))
    assert room.take() == list(range(1, count + 1))


def changes(room: Room) -> list[dict[str, Any]]:
    """The changes of the counts since the append."""
    return [
        {name: value for name, value in one.items() if value and name not in {"no", "changed_at"}}
        for one in room.table("changes")[1:]
    ]


def test_each_row_of_a_settlement_goes_its_own_way_and_the_others_stay(room: Room) -> None:
    filled(room, 7)
    room.at(2)
    assert room.settle(
        "c",
        delivered=[1],
        sent=[2],
        retry=[
            Retry(3, 5.0, attempts=4, isolated=True, note="HTTP 500\0"),
            Retry(4, 0.5, attempts=0, isolated=False),
        ],
        dead=[Dead(5, 6, "rejected", "no such thing")],
    ) == (0, False, False)
    ended = {"isolated": False, "attempts": 1, "sends": 1, "first_sent_at_ms": START_MS}
    settled = {**ended, "settled_at_ms": START_MS + 2000}
    assert room.rows("done") == {
        1: {**settled, "dead": False},
        5: {
            **settled,
            "attempts": 6,
            "dead": True,
            "reason": "rejected",
            "detail": "no such thing",
        },
    }
    assert room.rows("sent") == {2: {**ended, "sent_at_ms": START_MS + 2000}}
    waits = {"held": False, "sends": 1, "first_sent_at_ms": START_MS, "payload_bytes": SIZE}
    assert room.rows("ready") == {
        3: {**waits, "due_at": 7.0, "attempts": 4, "isolated": True},
        4: {**waits, "due_at": 2.5, "attempts": 0, "isolated": False},
    }
    assert room.rows("notes") == {3: {"at_ms": START_MS + 2000, "note": "HTTP 500\ufffd"}}
    [kept] = room.table("claims")
    assert kept == {
        "claim": "c",
        "lease_until": 30.0,
        "claimed_at_ms": START_MS,
        "seqs": [6, 7],
        "attempts": [0, 0],
        "sends": [0, 0],
        "isolated": [False, False],
        "first_sent_at_ms": [None, None],
        "express": [],
    }


def test_settled_rows_leave_the_counts_of_their_owners_and_tried_ones_stay(room: Room) -> None:
    room.append(*(event(f"u-{at // 2}") for at in range(7)))
    room.take()
    room.settle(
        "c",
        delivered=[1, 2],
        sent=[3],
        dead=[Dead(5, 1, "r", "d")],
        retry=[Retry(7, 0, 0, isolated=False)],
    )
    [change] = changes(room)
    by_owner = dict(zip(change.pop("owners"), change.pop("pending"), strict=True))
    assert by_owner == {"u-0": -2, "u-1": -1, "u-2": -1}
    assert change == {"delivered": 2, "dead": 1, "sent": 1}
    room.settle("c", retry=[Retry(4, 0, 0, isolated=False)])
    assert len(changes(room)) == 1


PAST = {"attempts": 2, "sends": 5, "first_sent_at_ms": 77, "isolated": True}


@pytest.mark.parametrize(
    ("named", "place", "kept"),
    [
        ({"delivered": [1]}, "done", {**PAST, "attempts": 3, "sends": 6}),
        ({"sent": [1]}, "sent", {**PAST, "attempts": 3, "sends": 6}),
        ({"dead": [Dead(1, 9, "r", "d")]}, "done", {**PAST, "attempts": 9, "sends": 6}),
        (
            {"retry": [Retry(1, 0, 9, isolated=False)]},
            "ready",
            {**PAST, "attempts": 9, "sends": 6, "isolated": False, "express_seq": 1},
        ),
    ],
)
def test_a_row_keeps_its_past_on_each_way_out_of_a_claim(
    room: Room, named: dict[str, Any], place: str, kept: dict[str, Any]
) -> None:
    room.append(event(), express=True)
    room.run("UPDATE outbox_ready SET attempts = 2, sends = 5, first_sent_at_ms = 77")
    room.take()
    room.run("UPDATE outbox_claims SET isolated = '{t}'")
    room.settle("c", **named)
    row = room.rows(place)[1]
    assert {name: row[name] for name in kept} == kept


def test_rows_that_stay_keep_their_past(room: Room) -> None:
    filled(room, 3)
    room.run(
        "UPDATE outbox_claims SET attempts = '{1,2,3}', sends = '{4,5,6}', isolated = '{f,t,f}',"
        " first_sent_at_ms = '{7,8,NULL}', express = '{3}'"
    )
    room.settle("c", delivered=[1])
    [kept] = room.table("claims")
    assert kept == {
        **kept,
        "seqs": [2, 3],
        "attempts": [2, 3],
        "sends": [5, 6],
        "isolated": [True, False],
        "first_sent_at_ms": [8, None],
        "express": [3],
    }


WAYS = ["delivered", "sent", "retry", "dead"]


def named(way: str, seqs: list[int]) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "delivered": seqs,
        "sent": seqs,
        "retry": [Retry(seq, 1, 0, isolated=False) for seq in seqs],
        "dead": [Dead(seq, 0, "r", "d") for seq in seqs],
    }
    return {way: rows[way]}


@pytest.mark.parametrize("way", WAYS)
def test_a_settlement_moves_only_rows_under_its_own_claim(room: Room, way: str) -> None:
    filled(room, 5)
    room.append(event(), event())
    assert room.take(claim="other") == [6, 7]
    before = room.table("claims")[-1]
    assert room.settle("c", **named(way, [1, 3, 6, 99])) == (2, False, False)
    places = room.places()
    assert {seq for seq, place in places.items() if place == "claims"} == {2, 4, 5, 6, 7}
    assert room.table("claims")[0] == before
    for claim in ("c", "nobody"):
        assert room.settle(claim, **named(way, [1, 3]))[0] == 2
        assert room.places() == places


@pytest.mark.parametrize("way", WAYS)
def test_a_settlement_of_all_its_rows_ends_the_claim(room: Room, way: str) -> None:
    filled(room, 2)
    room.append(event())
    room.take(claim="other")
    assert room.settle("c", **named(way, [1])) == (0, False, False)
    assert room.settle("c", **named(way, [2])) == (0, False, True)
    assert [one["claim"] for one in room.table("claims")] == ["other"]
    assert room.settle("c", **named(way, [2])) == (1, False, True)
    assert [one["claim"] for one in room.table("claims")] == ["other"]


@pytest.mark.parametrize("way", ["delivered", "sent"])
def test_a_row_that_is_named_twice_moves_once(room: Room, way: str) -> None:
    filled(room, 2)
    assert room.settle("c", **{way: [1, 1]}) == (0, False, False)
    assert room.settle("c", **{way: [1, 1]}) == (1, False, False)
    assert len(changes(room)) == 1


def test_an_empty_settlement_moves_nothing(room: Room) -> None:
    filled(room, 1)
    assert room.settle("c") == (0, False, False)
    assert room.places() == {1: "claims"}
    assert changes(room) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_repetition_whose_rows_are_settled_counts_as_done(room: Room, way: str) -> None:
    filled(room, 2)
    assert room.settle("c", repeated=True, **named(way, [1])) == (0, False, False)
    assert room.settle("c", repeated=True, **named(way, [1])) == (0, False, False)
    room.settle("c", **named(way, [2]))
    assert room.settle("c", repeated=True, **named(way, [1, 2])) == (0, False, True)


@pytest.mark.parametrize(
    ("delay", "due", "at_once"), [(0.0, 2, True), (-1.0, 2, True), (0.5, 2.5, False)]
)
def test_a_row_is_due_after_its_delay(
    room: Room, delay: float, due: float, *, at_once: bool
) -> None:
    filled(room, 1)
    room.at(2)
    assert room.settle("c", retry=[Retry(1, delay, 0, isolated=False)])[1] is at_once
    assert room.rows("ready")[1]["due_at"] == due


def test_a_row_that_is_not_under_the_claim_is_not_due_at_once(room: Room) -> None:
    filled(room, 1)
    again = [Retry(2, 0, 0, isolated=False), Retry(1, 9, 0, isolated=False)]
    assert room.settle("c", retry=again) == (1, False, True)


@pytest.mark.parametrize("lane", ["due_from", "isolated_from"])
def test_a_row_comes_back_behind_the_marks(room: Room, lane: str) -> None:
    filled(room, 1)
    room.mark(**{lane: after(100)})
    room.settle("c", retry=[Retry(1, 1, 0, isolated=False)])
    assert room.rows("ready")[1]["due_at"] == 101.0


def test_a_row_is_sent_behind_its_mark_and_settled_by_the_clock(room: Room) -> None:
    filled(room, 2)
    room.mark(sent_from=START_MS + 5000, due_from=after(100))
    room.settle("c", sent=[1], delivered=[2])
    assert room.rows("sent")[1]["sent_at_ms"] == START_MS + 5000
    assert room.rows("done")[2]["settled_at_ms"] == START_MS
