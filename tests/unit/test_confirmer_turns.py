"""Which process asks Inngest, where several have one outbox."""

from __future__ import annotations

import asyncio

from tests.support.confirmed_world import world
from tests.support.virtual_time import in_virtual_time


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
