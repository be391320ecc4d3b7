"""One lane, several processes: what one sees of Inngest, the others know soon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.relay.lane import Lane, LaneState
from service.relay.lane_keeper import LaneKeeper
from tests.contract.storage import Outbox, PostgresStorage, eventually


def closed(keeper: LaneKeeper, seconds: float) -> Lane:
    reopens_at = asyncio.get_running_loop().time() + seconds
    return keeper.lane.resumed(LaneState.CLOSED, reason="HTTP 503", reopens_at=reopens_at)


@pytest.fixture
async def keepers(postgres_url: str) -> AsyncIterator[tuple[LaneKeeper, LaneKeeper, Outbox]]:
    storage = PostgresStorage(postgres_url)
    async with storage.open() as one, storage.open() as two:
        pair = tuple(
            LaneKeeper(outbox, Lane.fresh(500, 2**20, 4), lambda: None) for outbox in (one, two)
        )
        for keeper in pair:
            await keeper.restore()
        tasks = [asyncio.create_task(keeper.keep()) for keeper in pair]
        yield *pair, one
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def state(keeper: LaneKeeper, wanted: LaneState) -> None:
    async def there() -> bool:
        return keeper.lane.state is wanted

    await eventually(there)


async def test_trouble_and_recovery_are_known_to_a_process_that_has_no_news(
    keepers: tuple[LaneKeeper, LaneKeeper, Outbox],
) -> None:
    one, two, _ = keepers
    one.move(closed(one, 60))
    await state(two, LaneState.CLOSED)
    assert two.lane.reason == "HTTP 503"
    now = asyncio.get_running_loop().time()
    assert 30 < two.lane.reopens_at - now < 61

    one.move(Lane.fresh(500, 2**20, 4))

    async def asks_now() -> bool:
        return two.lane.reopens_at <= asyncio.get_running_loop().time()

    await eventually(asks_now)
    assert two.lane.state is LaneState.CLOSED


async def test_a_process_that_delivers_is_not_held_up_by_anothers_trouble(
    keepers: tuple[LaneKeeper, LaneKeeper, Outbox],
) -> None:
    one, two, outbox = keepers

    async def deliver() -> None:
        while True:
            two.delivered(10)
            await asyncio.sleep(0.01)

    delivering = asyncio.create_task(deliver())
    one.move(closed(one, 60))

    async def two_has_told_since() -> bool:
        record = await outbox.load_lane()
        return record is not None and record.revision > 3 and record.rate > 1

    await eventually(two_has_told_since)
    assert two.lane.state is LaneState.OPEN
    delivering.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await delivering
