"""Slots: so many at once, the others in order and not for ever."""

from __future__ import annotations

import asyncio

from service.web.server.slots import Slots

LONG_SECONDS = 60


async def test_a_slot_that_is_given_back_goes_to_the_first_in_line() -> None:
    slots = Slots(1, LONG_SECONDS)
    assert await slots.take()
    took: list[str] = []

    async def wait(name: str) -> None:
        assert await slots.take()
        took.append(name)
        slots.give_back()

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(wait(name))
        await asyncio.sleep(0)
        assert took == []
        slots.give_back()
    assert took == ["a", "b", "c"]
    assert await slots.take()


async def test_who_waits_too_long_gets_none_and_the_next_in_line_is_served() -> None:
    slots = Slots(1, 0.01)
    assert await slots.take()
    assert await asyncio.gather(slots.take(), slots.take()) == [False, False]
    late = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give_back()
    assert await late


async def test_many_that_have_waited_too_long_do_not_all_run_in_one_turn() -> None:
    slots = Slots(1, 0.01)
    assert await slots.take()
    waiting = [asyncio.create_task(slots.take()) for _ in range(1000)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert any(not one.done() for one in waiting)
    assert not any(await asyncio.gather(*waiting))


async def test_who_leaves_the_line_loses_no_slot() -> None:
    slots = Slots(1, LONG_SECONDS)
    assert await slots.take()
    gone, given = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    gone.cancel()
    slots.give_back()
    given.cancel()  # at the moment at which it gets the slot
    await asyncio.gather(gone, given, return_exceptions=True)
    assert await slots.take()
