"""Claims of PostgreSQL's queue that wait are woken by what came before their wait, too."""

from __future__ import annotations

import asyncio

from service.outbox.postgres.queue import Wakeup
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_wake_up_after_the_look_and_before_the_wait_is_not_lost() -> None:
    wakeup = Wakeup()
    looked = wakeup.generation
    wakeup.rows_are_due()
    async with asyncio.timeout(1):
        await wakeup.wait(looked)
