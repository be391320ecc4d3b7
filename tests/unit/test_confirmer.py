"""The confirmer beside Inngest, and the bound of what it may leave unconfirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Retry, Settlement
from inngest_outbox.outbox.ports import Queue
from inngest_outbox.relay.breaker_sync import BreakerSync
from inngest_outbox.relay.confirmation import NOTES, ResendReason
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.settler import Settler
from inngest_outbox.relay.unconfirmed import Unconfirmed, deliver_left_rows, deliver_unconfirmed
from tests.support.confirmed_world import ConfirmerWorld, world
from tests.support.memory_queue import MemoryConfirmations
from tests.support.virtual_time import in_virtual_time, now


@in_virtual_time
async def test_what_is_stored_becomes_delivered_soon_after_at_three_questions_for_a_hundred():
    async with world(rate=1_000) as one:
        one.send(range(1, 5_001))
        seconds = await one.until(lambda: len(one.delivered) == 5_000, 20)
        assert seconds < 5 / 0.9
        assert one.inngest.questions < 150 + 4 * 20
        assert not one.resent


@in_virtual_time
async def test_a_stop_too_short_to_be_seen_is_found_by_the_events_behind_it():
    async with world(rate=500) as one:
        for batch in range(60):
            one.send(range(1 + 100 * batch, 101 + 100 * batch))
            if batch == 10:
                one.inngest.stop()
                one.inngest.away = False
            await asyncio.sleep(0.5)
        await one.until(lambda: not one.sent, 20)
        assert one.notes == {NOTES[ResendReason.PASSED]}
        assert set(one.resent) == set(range(1_001, 1_101))


@in_virtual_time
async def test_a_standstill_ends_in_a_second_copy_not_in_a_wait_for_ever():
    async with world(rate=0) as one:
        one.send(range(1, 101))
        seconds = await one.until(lambda: len(one.resent) == 100, 120)
        assert seconds > 59
        assert one.notes == {NOTES[ResendReason.STALLED]}
        assert await one.until(lambda: not one.unconfirmed.count, 10) < 0.2  # their room is free


@pytest.mark.parametrize("trouble", ["away", "refusing"])
@in_virtual_time
async def test_while_inngest_can_not_be_asked_it_is_told_and_rows_are_asked_for_rarely(trouble):
    async with world(rate=1_000) as one:
        setattr(one.inngest, trouble, True)
        one.send(range(1, 101))
        await asyncio.sleep(900)
        assert len(one.sent) == 100
        assert one.inngest.questions < 250
        assert one.faults == [trouble]
        setattr(one.inngest, trouble, False)
        await one.until(lambda: len(one.delivered) == 100, 10)
        assert not one.resent
        await asyncio.sleep(1)
        assert one.faults == [trouble, None]


@pytest.mark.parametrize(("away", "most"), [(False, 200), (True, 100)])
@in_virtual_time
async def test_a_sweep_ends_where_there_is_nothing_to_find(away, most):
    """It begins 15 times; all chunks of 500 rows would be 270 questions."""
    async with world(rate=0) as one:
        one.inngest.away = away
        one.send(range(1, 9_001))
        await asyncio.sleep(50)
        assert one.inngest.questions < most


@in_virtual_time
async def test_nothing_is_asked_while_nothing_is_sent():
    async with world(rate=1_000) as one:
        await asyncio.sleep(3_600)
        assert one.inngest.questions == 0
        one.send(range(1, 11))
        await one.until(lambda: len(one.delivered) == 10, 2)
        asked = one.inngest.questions
        await asyncio.sleep(3_600)
        assert one.inngest.questions == asked


@in_virtual_time
async def test_rows_that_another_process_sent_are_confirmed_too():
    async with world(rate=1_000) as one:
        await asyncio.sleep(1)
        one.send_elsewhere([1, 2, 3])
        await one.until(lambda: len(one.delivered) == 3, 10)


@in_virtual_time
async def test_a_process_stops_asking_when_another_has_taken_the_turn_meanwhile():
    async with world(rate=10_000) as one:
        page = one.inngest.page

        async def page_while_another_takes_the_turn(*given: Any) -> Any:
            one.confirmations.another_asks = True
            return await page(*given)

        one.send(range(1, 8_001))
        await asyncio.sleep(0.2)
        one.inngest.page = page_while_another_takes_the_turn
        await asyncio.sleep(30)
        assert len(one.delivered) < 4_000
        one.confirmations.another_asks = False
        one.inngest.page = page
        await one.until(lambda: len(one.delivered) == 8_000, 20)


@in_virtual_time
async def test_a_store_that_can_not_write_now_is_asked_again():
    class Failing(MemoryConfirmations):
        faults = 5

        async def confirm(self, seqs: list[int]) -> int:
            self.faults -= 1
            if self.faults >= 0:
                raise OutboxUnavailableError
            return await super().confirm(seqs)

    async with world(rate=1_000) as one:
        one.confirmer._confirmations = Failing(one.rows)
        one.send(range(1, 11))
        await one.until(lambda: len(one.delivered) == 10, 30)


@in_virtual_time
async def test_a_restart_between_two_questions_is_seen_by_its_connection():
    async with world(rate=0) as one:
        one.send(range(1, 101))
        await asyncio.sleep(1)
        one.inngest.stop()
        one.inngest.away = False
        one.confirmer.reconnected()
        seconds = await one.until(lambda: len(one.resent) == 100, 30)
        assert 5 < seconds < 12
        assert one.notes == {NOTES[ResendReason.RESTARTED]}


@in_virtual_time
async def test_slow_answers_hold_up_neither_the_rate_nor_the_room():
    async with world(rate=1_000) as one:
        one.inngest.answer_seconds = 0.5
        for batch in range(30):
            await one.until(lambda: one.unconfirmed.room(0) >= 500, 10)
            one.send(range(1 + 500 * batch, 501 + 500 * batch))
        await one.until(lambda: len(one.delivered) == 15_000, 15)
        assert now() < 15_000 / 1_000 + 2.5
        assert not one.resent


@in_virtual_time
async def test_a_row_is_judged_by_what_was_known_when_inngest_was_asked():
    """Answers may overtake each other; a row that is stored meanwhile is not sent again."""
    async with world(rate=0) as one:
        page = one.inngest.page

        async def page_of_others(*given: Any) -> Any:
            await asyncio.sleep(1)
            return await page(*given)

        async def late_page(*given: Any) -> Any:
            one.inngest.page = page_of_others
            found = await page(*given)
            one.inngest.rate = 100_000
            await asyncio.sleep(30)
            return found

        for batch in range(40):
            one.send(range(1 + 50 * batch, 51 + 50 * batch))
            await asyncio.sleep(0.5)
        one.inngest.page = late_page
        await one.until(lambda: len(one.delivered) == 2_000, 60)
        assert not one.resent


@in_virtual_time
async def test_a_refused_environment_has_a_bound_of_its_own():
    async with world(rate=1_000) as one:
        one.inngest.refused = {"branch"}
        one.send(range(1, 901), "branch")
        await one.until(lambda: one.unconfirmed.refused == {"branch": 900}, 20)
        assert one.unconfirmed.room(0) == 10_000
        assert not one.unconfirmed.is_full("branch")
        one.send(range(901, 1_001), "branch")
        assert one.unconfirmed.is_full("branch")
        assert not one.unconfirmed.is_full(None)
        asked = one.inngest.questions
        await asyncio.sleep(60)
        assert one.inngest.questions - asked <= 2 * 60 / 5


@in_virtual_time
async def test_an_inngest_that_refuses_the_signing_key_takes_the_common_room():
    async with world(rate=1_000) as one:
        one.inngest.refused = {None}
        one.send(range(1, 1_001))
        await asyncio.sleep(20)
        assert one.unconfirmed.room(0) == 9_000
        assert one.faults == ["refuses None"]


@in_virtual_time
async def test_while_another_process_asks_only_the_count_is_read():
    async with world(rate=1_000) as one:
        one.confirmations.another_asks = True
        one.send(range(1, 11))
        await asyncio.sleep(600)
        assert (one.inngest.questions, one.unconfirmed.count) == (0, 10)
        await one.confirmations.confirm(range(1, 11))
        await one.until(lambda: one.unconfirmed.count == 0, 5)


@in_virtual_time
async def test_a_turn_begins_without_knowledge_of_what_inngest_stores():
    async with world(rate=0) as one:
        one.confirmations.another_asks = True
        one.send(range(1, 11))
        await asyncio.sleep(600)
        one.confirmations.another_asks = False
        seconds = await one.until(lambda: len(one.resent) == 10, 120)
        assert seconds > 59


@in_virtual_time
async def test_a_process_that_can_not_ask_gives_its_turn_to_another():
    async with world(rate=1_000) as one:
        one.inngest.away = True
        one.send([1])
        await one.until(lambda: one.confirmations.stopped > 0, 10)


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
