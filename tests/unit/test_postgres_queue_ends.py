"""What a PostgreSQL queue that ends releases, and what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres.claims import CLAIM_EXPRESS
from service.outbox.postgres.leases import EXPIRE, RELEASE
from tests.support.queue_world import ROWS, World, cancelled_claim
from tests.support.storage import ask


@pytest.mark.parametrize("released", [0, 2])
async def test_a_queue_that_ends_releases_its_claims_and_wakes_others(released: int) -> None:
    world = World()
    async with world.queue:
        world.pool.claims = [OutboxUnavailableError(), ROWS]
        with pytest.raises(OutboxUnavailableError):
            await world.queue.claim(ask())
        world.pool.claims = [ROWS]
        batch = await world.queue.claim(ask())
        world.pool.claims = [OutboxUnavailableError()]
        with pytest.raises(OutboxUnavailableError):
            await world.queue.claim(ask())
        world.pool.released = released
    asked = world.pool.of(CLAIM_EXPRESS)[-1]
    assert world.pool.of(RELEASE)[-2:] == [
        {"claims": [asked["claim"]], "sent": False},
        {"claims": [batch.claim], "sent": True},
    ]
    assert world.wakeup.due == (released > 0)
    assert EXPIRE not in [statement for statement, _, _ in world.pool.asked]


async def test_a_queue_that_ends_waits_for_a_cancelled_claim_and_releases_it() -> None:
    world = World()
    async with world.queue:
        await cancelled_claim(world)
        asyncio.get_running_loop().call_soon(world.pool.may_answer.set)
    [asked] = world.pool.of(CLAIM_EXPRESS)
    assert {"claims": [asked["claim"]], "sent": False} in world.pool.of(RELEASE)


async def test_a_queue_that_ends_waits_for_a_release_that_is_under_way() -> None:
    world = World()
    world.pool.may_release.clear()
    async with world.queue:
        await cancelled_claim(world)
        world.pool.may_answer.set()
        await world.pool.releasing.wait()
        asyncio.get_running_loop().call_soon(world.pool.may_release.set)
    assert [given["sent"] for given in world.pool.of(RELEASE)] == [False, True]


async def test_a_queue_ends_without_its_database() -> None:
    """The leases of its claims will be over."""
    world = World()
    async with world.queue:
        world.pool.claims = [ROWS]
        await world.queue.claim(ask())
        world.pool.release_error = OutboxUnavailableError()
