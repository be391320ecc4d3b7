"""The confirmer beside an Inngest that stores late, loses and comes back, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.relay.confirmation import NOTES, ResendReason
from tests.support.confirmed_world import world
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
        await asyncio.sleep(3_600)
        assert len(one.sent) == 100
        assert one.inngest.questions < 1_000
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
        for batch in range(60):
            await one.until(lambda: one.unconfirmed.room(0) >= 500, 10)
            one.send(range(1 + 500 * batch, 501 + 500 * batch))
        await one.until(lambda: len(one.delivered) == 30_000, 15)
        assert now() < 30_000 / 1_000 / 0.9
        assert not one.resent


@in_virtual_time
async def test_a_row_is_judged_by_what_was_known_when_inngest_was_asked():
    """Answers may overtake each other; a row that is stored meanwhile is not sent again."""
    async with world(rate=400) as one:
        one.inngest.answer_seconds = 6.0
        for batch in range(60):
            one.send(range(1 + 200 * batch, 201 + 200 * batch))
            await asyncio.sleep(0.5)
        await one.until(lambda: len(one.delivered) == 12_000, 120)
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
        await asyncio.sleep(3_600)
        assert (one.inngest.questions, one.unconfirmed.count) == (0, 10)
        await one.confirmations.confirm(range(1, 11))
        await one.until(lambda: one.unconfirmed.count == 0, 5)


@in_virtual_time
async def test_a_turn_begins_without_knowledge_of_what_inngest_stores():
    async with world(rate=0) as one:
        one.confirmations.another_asks = True
        one.send(range(1, 11))
        await asyncio.sleep(3_600)
        one.confirmations.another_asks = False
        seconds = await one.until(lambda: len(one.resent) == 10, 120)
        assert seconds > 59


@in_virtual_time
async def test_a_process_that_can_not_ask_gives_its_turn_to_another():
    async with world(rate=1_000) as one:
        one.inngest.away = True
        one.send([1])
        await one.until(lambda: one.confirmations.stopped > 0, 10)
