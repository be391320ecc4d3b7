"""Settlements are written once and counted; events that are sent wait for Inngest's store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.model import Retry, Settlement
from service.outbox.ports import Queue
from service.relay.breaker_sync import BreakerSync
from service.relay.report import Report
from service.relay.settler import Settler
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


class World:
    """A settler, the store that it writes to, and those who are told."""

    def __init__(self, answers: Sequence[int | Exception] = (), max_unconfirmed: int = 0) -> None:
        self.answers = list(answers)
        self.written: list[Settlement] = []
        self.counted: list[tuple[str, int]] = []
        self.stale: list[tuple[str, int]] = []
        self.unconfirmed = Unconfirmed(max_unconfirmed) if max_unconfirmed else None
        one = cast("Any", self)
        self.settler = Settler(
            cast("Queue", one), cast("BreakerSync", one), cast("Report", one), self.unconfirmed
        )

    async def settle(self, settlement: Settlement) -> int:
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        self.written.append(settlement)
        return answer

    def answered(self, count: int) -> None:
        self.counted.append(("answered", count))

    def delivered(self, count: int) -> None:
        self.counted.append(("delivered", count))

    def lease_lost(self, claim: str, rows: int) -> None:
        self.stale.append((claim, rows))


@in_virtual_time
async def test_a_store_that_fails_is_tried_again_four_times_a_second_until_it_has_it() -> None:
    world = World([OutboxUnavailableError("no disk")] * 3)
    with structlog.testing.capture_logs() as told:
        await world.settler.settle(Settlement("c", delivered=[1]))
    assert world.written == [Settlement("c", delivered=[1])]
    assert asyncio.get_running_loop().time() == 0.75
    failed = {"event": "settle_failed", "log_level": "warning", "reason": "no disk"}
    assert told == [failed] * 3


async def test_rows_of_a_lost_lease_are_reported() -> None:
    world = World([2])
    await world.settler.settle(Settlement("c", delivered=[1, 2, 3]))
    assert world.stale == [("c", 2)]


@pytest.mark.parametrize("can_confirm", [False, True])
@pytest.mark.parametrize("confirms", [False, True])
async def test_what_was_taken_is_sent_where_it_can_be_confirmed_else_delivered(
    *, can_confirm: bool, confirms: bool
) -> None:
    world = World(max_unconfirmed=10 if confirms else 0)
    retry = [Retry(3, 0.0, 0, isolated=False)]
    taken = Settlement("c", delivered=[1, 2], retry=retry)
    written = await world.settler.settle_answer(taken, None, can_confirm=can_confirm)
    as_sent = can_confirm and confirms
    assert written == (Settlement("c", sent=[1, 2], retry=retry) if as_sent else taken)
    assert world.written == [written]
    counted = [("answered", 2)] if as_sent else [("answered", 2), ("delivered", 2)]
    assert world.counted == counted
    if world.unconfirmed is not None:
        assert world.unconfirmed.count == (2 if as_sent else 0)
