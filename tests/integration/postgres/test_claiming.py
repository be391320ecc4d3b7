"""Which rows a claim takes on PostgreSQL: lanes, orders, marks, the window; and what it keeps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.model import Isolated, Retry
from service.outbox.postgres.claims import claim_values
from tests.support.postgres_room import START_MS, Room, after
from tests.support.storage import ask, event

FIRST, LAST, NONE = Isolated.FIRST, Isolated.LAST, Isolated.NONE
BOTH = pytest.mark.parametrize("express", [False, True])


@BOTH
def test_a_claim_gives_all_that_a_sender_needs(room: Room, *, express: bool) -> None:
    one, two = event("u-1"), event("u-2")
    room.append(one)
    room.append(msgspec.structs.replace(two, meta=Meta(trace="t")), express=True)
    room.run(
        "UPDATE outbox SET inngest_id = 'ulid', wire_id = 'w', environment = 'e' WHERE seq = 2"
    )
    room.run("UPDATE outbox_ready SET attempts = 2, sends = 3, first_sent_at_ms = 7 WHERE seq = 2")
    plain, odd = room.claim(express=express)
    new = (0, False, None, 0, None, None, None, None)
    assert plain == (1, one.id, one.accepted_at_ms, "u-1", *new, one.payload)
    tried = (2, False, 7, 3, "ulid", "w", "e", "t")
    assert odd == (2, two.id, two.accepted_at_ms, "u-2", *tried, two.payload)


@BOTH
def test_a_claim_keeps_its_rows_under_a_lease(room: Room, *, express: bool) -> None:
    room.append(event(), event())
    room.append(event(), express=True)
    room.run("UPDATE outbox_ready SET attempts = 2, sends = 3, first_sent_at_ms = 7 WHERE seq = 3")
    room.at(1)
    assert room.take(claim="mine", lease_seconds=20.5, express=express) == [1, 2, 3]
    assert room.rows("ready") == {}
    assert room.table("claims") == [
        {
            "claim": "mine",
            "lease_until": 21.5,
            "claimed_at_ms": START_MS + 1000,
            "seqs": [1, 2, 3],
            "attempts": [0, 0, 2],
            "sends": [0, 0, 3],
            "isolated": [False, False, False],
            "first_sent_at_ms": [None, None, 7],
            "express": [3],
        }
    ]


def test_an_isolated_row_stays_isolated_under_its_claim(room: Room) -> None:
    room.wait(1, due=0, isolated=True)
    [row] = room.claim()
    assert row[5] is True
    assert room.table("claims")[0]["isolated"] == [True]


@BOTH
def test_a_claim_of_nothing_keeps_nothing(room: Room, *, express: bool) -> None:
    assert room.claim(express=express) == []
    assert room.table("claims") == []


def test_a_lease_ends_behind_the_mark(room: Room) -> None:
    room.wait(1)
    room.mark(lease_from=after(50))
    room.take(lease_seconds=20)
    assert room.table("claims")[0]["lease_until"] == 70.0


@BOTH
def test_both_lanes_give_the_oldest_events_in_their_order(room: Room, *, express: bool) -> None:
    room.wait(8, 2, 6, 4)
    for seq in (7, 1, 5, 3):
        room.wait(seq, due=seq - 10)
    assert room.take(3, express=express) == [1, 2, 3]
    assert room.take(3, express=express, claim="d") == [4, 5, 6]
    assert room.take(3, express=express, claim="e") == [7, 8]


def test_of_the_delayed_rows_those_that_were_due_first_come_first(room: Room) -> None:
    for seq, due in ((1, -1.0), (2, -3.0), (3, -4.0), (4, -2.0)):
        room.wait(seq, due=due)
    assert [room.take(1, claim=f"{at}") for at in range(4)] == [[3], [2], [4], [1]]


@BOTH
def test_the_newest_have_their_share(room: Room, *, express: bool) -> None:
    room.wait(3, 7, 1, 5, 9, 2, 8, 4, 6)
    assert room.take(5, fresh_share=0.4, express=express) == [1, 2, 3, 8, 9]
    assert room.take(2, fresh_share=1.0, express=express, claim="d") == [6, 7]


def test_the_newest_are_new_rows(room: Room) -> None:
    room.wait(1, 2, 3)
    room.wait(9, due=0)
    assert room.take(2, fresh_share=0.5) == [1, 3]
    assert room.take(2, fresh_share=0.5, claim="d") == [2, 9]
    assert room.take(2, fresh_share=1.0, claim="e") == []


def test_the_newest_take_no_place_of_the_oldest(room: Room) -> None:
    room.wait(1, 2, 3)
    assert room.take(8, fresh_share=0.5) == [1, 2, 3]
    room.wait(11, 12, 13, 14)
    assert room.take(4, fresh_share=0.5, claim="d") == [11, 12, 13, 14]


def test_without_isolated_rows_a_claim_has_all_that_it_wants(room: Room) -> None:
    room.wait(1, 2, 3, 4)
    assert room.take(3, fresh_share=0.4, isolated=FIRST) == [1, 2, 4]


@BOTH
@pytest.mark.parametrize(("seconds", "taken"), [(-0.001, []), (0.0, [1]), (0.001, [1])])
@pytest.mark.parametrize("isolated", [False, True])
def test_a_delayed_row_is_taken_when_it_is_due(
    room: Room, seconds: float, taken: list[int], *, isolated: bool, express: bool
) -> None:
    room.wait(1, due=10, isolated=isolated)
    room.at(10 + seconds)
    for order in (FIRST, LAST) if isolated else (FIRST,):
        assert room.take(isolated=order, express=express, claim=order.value) == taken
        room.run("DELETE FROM outbox_claims")
        if taken:
            break


@BOTH
def test_isolated_rows_come_first_last_or_not_and_always_alone(
    room: Room, *, express: bool
) -> None:
    for seq, due in ((11, -1), (12, -3), (13, -2)):
        room.wait(seq, due=due, isolated=True)
    room.wait(1, 2)
    assert room.take(isolated=FIRST, express=express) == [12]
    assert room.take(isolated=NONE, express=express, claim="d") == [1, 2]
    assert room.take(isolated=NONE, express=express, claim="e") == []
    assert room.take(isolated=LAST, express=express, claim="f") == [13]
    room.wait(3, due=0)
    assert room.take(isolated=LAST, express=express, claim="g") == [3]
    assert room.take(isolated=LAST, express=express, claim="h") == [11]


def test_an_isolated_row_comes_after_the_newest_alone(room: Room) -> None:
    room.wait(1, due=0, isolated=True)
    room.wait(2)
    assert room.take(1, fresh_share=1.0, isolated=LAST) == [2]
    assert room.take(1, fresh_share=1.0, isolated=LAST, claim="d") == [1]


def test_an_isolated_row_that_comes_first_leaves_the_newest(room: Room) -> None:
    room.wait(1, due=0, isolated=True)
    room.wait(2, 3)
    assert room.take(2, fresh_share=0.5, isolated=FIRST) == [1]
    assert set(room.rows("ready")) == {2, 3}


@BOTH
def test_reads_begin_at_the_marks(room: Room, *, express: bool) -> None:
    room.at(100).mark(ready_from=10, due_from=after(20), isolated_from=after(30))
    room.wait(9, 10)
    room.wait(1, due=19.999)
    room.wait(2, due=20)
    room.wait(3, due=29.999, isolated=True)
    room.wait(4, due=30, isolated=True)
    assert room.take(isolated=NONE, express=express) == [2, 10]
    assert room.take(isolated=LAST, express=express, claim="d") == [4]
    assert room.take(isolated=LAST, express=express, claim="e") == []
    room.wait(5, due=30, isolated=True)
    assert room.take(isolated=FIRST, express=express, claim="f") == [5]
    assert room.take(isolated=FIRST, express=express, claim="g") == []
    assert room.take(fresh_share=1.0, express=express, claim="h") == []


@BOTH
@pytest.mark.parametrize("lane", ["due_from", "isolated_from"])
@pytest.mark.parametrize("isolated", [None, FIRST, LAST])
def test_no_mark_of_time_is_later_than_a_claim(
    room: Room, lane: str, isolated: Isolated | None, *, express: bool
) -> None:
    """The clock was set back: what came back behind the marks is due all the same."""
    room.mark(**{lane: after(60)})
    room.wait(1, due=60, isolated=isolated is not None)
    assert room.take(isolated=isolated or NONE, express=express) == [1]


def test_the_oldest_are_searched_in_a_window_from_the_mark(room: Room) -> None:
    room.mark(ready_from=10)
    room.wait(10, 14, 15)
    assert room.take(window=5) == [10, 14]
    assert room.take(window=5, claim="d") == []
    assert room.take(window=6, claim="e") == [15]


def test_a_share_of_the_newest_begins_where_all_have_been_seen(room: Room) -> None:
    """Before `safe_seq` they are the oldest ones' share, so that few dead rows are read."""
    room.mark(ready_from=1, safe_seq=20)
    room.wait(5, 18, 19, 20, 21)
    assert room.take(4, fresh_share=0.5, window=6) == [5, 20, 21]
    assert room.take(1, fresh_share=1.0, claim="d") == [19]
    room.mark(ready_from=30)
    room.wait(25)
    assert room.take(4, fresh_share=0.5, claim="e") == []


def test_a_row_that_came_back_is_claimed_with_its_past(room: Room) -> None:
    room.append(event())
    room.take()
    room.at(5).settle("c", retry=[Retry(1, 0, 3, isolated=True)])
    [row] = room.claim(claim="d")
    assert row[4:8] == (3, True, START_MS, 1)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"oldest": 10, "newest": 0, "express": 5, "newest_of_all": False}),
        ({"fresh_share": 0.25}, {"oldest": 8, "newest": 2, "express": 5}),
        ({"fresh_share": 0.7}, {"oldest": 3, "newest": 7, "express": 3}),
        ({"fresh_share": 1.0}, {"oldest": 0, "newest": 10, "express": 0, "newest_of_all": True}),
        ({"fresh_share": 1.01}, {"oldest": 0, "newest": 10}),
        ({"max_bytes": 1001}, {"oldest_bytes": 1001, "newest_bytes": 0, "express_bytes": 500}),
        ({"max_bytes": 1001, "fresh_share": 0.25}, {"oldest_bytes": 750, "newest_bytes": 250}),
        ({"lease_seconds": 7.5}, {"lease_seconds": 7.5}),
        ({"isolated": NONE}, {"isolated": "none"}),
    ],
)
def test_a_request_is_shared_out(changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    given = claim_values(ask(10, **changes), "c", 77)
    assert {name: given[name] for name in wanted} == wanted
    assert (given["claim"], given["window"], given["express_turn"]) == ("c", 77, False)


@pytest.mark.parametrize(("turn", "express"), [(False, 0), (True, 1)])
def test_a_request_for_one_row_is_express_in_its_turn(*, turn: bool, express: int) -> None:
    assert claim_values(ask(1), "c", 77, express_turn=turn)["express"] == express
