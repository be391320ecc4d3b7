"""Events that are sent ahead of Inngest's store, and rows that no process confirms."""

from __future__ import annotations

import asyncio

import pytest

from service.relay.unconfirmed import Unconfirmed, deliver_left_rows, deliver_unconfirmed
from tests.support.confirmed_world import ConfirmerWorld
from tests.support.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("count", "in_flight", "room", "only_fresh"),
    [
        (0, 0, 100, False),
        (30, 20, 50, False),
        (60, 29, 11, False),
        (60, 30, 10, True),
        (100, 0, 0, True),
        (100, 30, 0, True),
    ],
)
def test_the_room_is_what_is_left_and_its_last_tenth_is_for_fresh_events(
    count: int, in_flight: int, room: int, *, only_fresh: bool
) -> None:
    unconfirmed = Unconfirmed(100)
    unconfirmed.sent(count)
    assert (unconfirmed.count, unconfirmed.room(in_flight)) == (count, room)
    assert unconfirmed.only_fresh(in_flight) is only_fresh


def test_what_was_sent_is_told_and_so_is_room_that_grew() -> None:
    unconfirmed, told = Unconfirmed(100), []
    unconfirmed.sent(3)
    unconfirmed.recount(2)
    unconfirmed.on_sent = lambda: told.append("sent")
    unconfirmed.on_room = lambda: told.append("room")
    unconfirmed.sent(0)
    assert told == []
    unconfirmed.sent(2)
    assert (unconfirmed.count, told) == (4, ["sent"])
    for count in (4, 9, 8):
        unconfirmed.recount(count)
    assert (unconfirmed.count, told) == (8, ["sent", "room"])


@in_virtual_time
async def test_without_confirmation_rows_that_were_sent_are_delivered() -> None:
    one = ConfirmerWorld(rate=0)
    one.send(range(1, 1_202))
    assert await deliver_unconfirmed(one.confirmations, answered_seconds=1.0) == 0
    assert await deliver_unconfirmed(one.confirmations) == 1_201
    assert not one.sent


@in_virtual_time
async def test_rows_that_others_left_are_delivered_ten_minutes_after_their_answer() -> None:
    one = ConfirmerWorld(rate=0)
    one.send([1, 2])
    looking = asyncio.create_task(deliver_left_rows(one.confirmations))
    await asyncio.sleep(590)
    assert one.sent == {1, 2}
    one.confirmations.another_asks = True
    await asyncio.sleep(3_600)
    assert one.sent == {1, 2}
    one.confirmations.another_asks = False
    await asyncio.sleep(61)
    assert one.delivered == {1, 2}
    looking.cancel()
