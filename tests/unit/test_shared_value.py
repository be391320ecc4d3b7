"""A value that is fetched once for all who wait, and a failure that is remembered."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import ProviderUnavailableError
from service.identity.shared_value import SharedValue


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Neighbour:
    """Answers with how often it was asked, once `answers` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.is_down = False

    async def __call__(self) -> int:
        self.asked += 1
        await self.answers.wait()
        if self.is_down:
            raise ProviderUnavailableError
        return self.asked


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def neighbour() -> Neighbour:
    return Neighbour()


@pytest.fixture
def shared(neighbour, clock) -> SharedValue[int]:
    return SharedValue(neighbour, fresh_seconds=60, failure_seconds=5, clock=clock)


async def waiters(shared: SharedValue[int], count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(shared.get()) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_all_who_wait_share_one_request(shared, neighbour):
    tasks = await waiters(shared, 50)
    neighbour.answers.set()
    assert await asyncio.gather(*tasks) == [1] * 50
    assert neighbour.asked == 1


async def test_a_waiter_that_leaves_takes_nothing_from_the_others(shared, neighbour):
    gone, stays = await waiters(shared, 2)
    gone.cancel()
    neighbour.answers.set()
    assert await stays == 1


async def test_a_value_is_kept_while_it_is_fresh(shared, neighbour, clock):
    neighbour.answers.set()
    assert await shared.get() == await shared.get() == 1
    clock.now += 61
    assert await shared.get() == 2


async def test_a_failure_is_everybodys_and_for_some_seconds_nobody_asks_again(
    shared, neighbour, clock
):
    neighbour.is_down = True
    tasks = await waiters(shared, 3)
    neighbour.answers.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [ProviderUnavailableError] * 3
    with pytest.raises(ProviderUnavailableError):
        await shared.get()
    assert neighbour.asked == 1
    clock.now += 6
    neighbour.is_down = False
    assert await shared.get() == 2


async def test_it_is_renewed_when_asked_though_not_all_the_time(shared, neighbour, clock):
    neighbour.answers.set()
    assert await shared.get() == 1
    assert await shared.renewed(10) == 2
    assert await shared.renewed(10) is None
    clock.now += 11
    assert await shared.renewed(10) == 3
