"""One breaker, several processes: what one sees of Inngest, the others know soon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.relay.breaker import Breaker
from service.relay.breaker_sync import BreakerSync
from service.relay.sends import BreakerState
from tests.support.storage import Outbox, PostgresStorage, eventually


def closed(keeper: BreakerSync, seconds: float) -> Breaker:
    reopens_at = asyncio.get_running_loop().time() + seconds
    return keeper.breaker.resumed(
        BreakerState.BACKING_OFF, reason="HTTP 503", reopens_at=reopens_at
    )


@pytest.fixture
async def keepers(postgres_url: str) -> AsyncIterator[tuple[BreakerSync, BreakerSync, Outbox]]:
    storage = PostgresStorage(postgres_url)
    async with storage.open() as one, storage.open() as two:
        pair = tuple(
            BreakerSync(outbox.delivery, Breaker.fresh(500, 2**20, 4), lambda: None)
            for outbox in (one, two)
        )
        for keeper in pair:
            await keeper.restore()
        tasks = [asyncio.create_task(keeper.keep()) for keeper in pair]
        yield *pair, one
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def state(keeper: BreakerSync, wanted: BreakerState) -> None:
    await eventually(lambda: keeper.breaker.state is wanted)


async def test_trouble_and_recovery_are_known_to_a_process_that_has_no_news(
    keepers: tuple[BreakerSync, BreakerSync, Outbox],
) -> None:
    one, two, _ = keepers
    one.move(closed(one, 60))
    await state(two, BreakerState.BACKING_OFF)
    assert two.breaker.reason == "HTTP 503"
    now = asyncio.get_running_loop().time()
    assert 30 < two.breaker.reopens_at - now < 61

    one.move(Breaker.fresh(500, 2**20, 4))
    await eventually(lambda: two.breaker.reopens_at <= asyncio.get_running_loop().time())
    assert two.breaker.state is BreakerState.BACKING_OFF


async def test_a_process_that_delivers_is_not_held_up_by_anothers_trouble(
    keepers: tuple[BreakerSync, BreakerSync, Outbox],
) -> None:
    one, two, outbox = keepers

    async def deliver() -> None:
        while True:
            two.answered(10)
            two.delivered(10)
            await asyncio.sleep(0.01)

    delivering = asyncio.create_task(deliver())
    one.move(closed(one, 60))

    async def two_has_told_since() -> bool:
        record = await outbox.delivery.load()
        return record is not None and record.revision > 3 and record.rate > 1

    await eventually(two_has_told_since)
    assert two.breaker.state is BreakerState.HEALTHY
    delivering.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await delivering
