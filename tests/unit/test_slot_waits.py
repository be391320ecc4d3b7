"""When those in line for a slot get one, or leave without."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from service.web.server.slots import Slots
from tests.support.virtual_time import in_virtual_time, now


async def wait(slots: Slots, after: float = 0.0) -> tuple[bool, float]:
    """Whether a slot was taken, and when that was known."""
    await asyncio.sleep(after)
    return await slots.take(), round(now(), 6)


def waiting(slots: Slots, *starts: float) -> list[asyncio.Task[tuple[bool, float]]]:
    return [asyncio.create_task(wait(slots, after)) for after in starts]


@in_virtual_time
async def test_as_many_as_there_are_slots_run_at_once() -> None:
    slots = Slots(2, 5.0)
    assert [await slots.take(), await slots.take()] == [True, True]
    assert await wait(slots) == (False, 5.0)
    slots.give_back()
    slots.give_back()
    assert [await slots.take(), await slots.take()] == [True, True]
    assert await wait(slots) == (False, 10.0)


@in_virtual_time
async def test_each_leaves_after_its_own_wait() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    tasks = waiting(slots, 0.0, 2.0, 2.5)
    assert await asyncio.gather(*tasks) == [(False, 5.0), (False, 7.0), (False, 7.5)]


@in_virtual_time
async def test_who_gets_a_slot_holds_up_nobody_and_the_next_are_watched() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    tasks = waiting(slots, 0.0, 1.0)
    asyncio.get_running_loop().call_later(3.0, slots.give_back)
    assert await asyncio.gather(*tasks) == [(True, 3.0), (False, 6.0)]
    assert await asyncio.gather(*waiting(slots, 4.0)) == [(False, 15.0)]


@in_virtual_time
async def test_64_leave_at_a_time_every_hundredth_of_a_second() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    tasks = waiting(slots, *[0.0] * 150)
    ended = Counter(await asyncio.gather(*tasks))
    assert ended == {(False, 5.0): 64, (False, 5.01): 64, (False, 5.02): 22}


@in_virtual_time
async def test_who_has_left_already_is_not_counted() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    tasks = waiting(slots, *[0.0] * 100)
    await asyncio.sleep(1.0)
    for task in tasks[:50]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[50:] == [(False, 5.0)] * 50


@in_virtual_time
async def test_a_short_wait_ends_after_a_hundredth_of_a_second() -> None:
    slots = Slots(1, 0.0)
    assert await slots.take()
    assert await wait(slots) == (False, 0.01)


@in_virtual_time
async def test_a_slot_passes_those_that_have_left_and_is_free_when_all_have() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    tasks = waiting(slots, 0.0, 0.0)
    await asyncio.sleep(1.0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    slots.give_back()
    assert await wait(slots) == (True, 1.0)
    assert await wait(slots) == (False, 6.0)


@in_virtual_time
async def test_who_is_cancelled_as_the_slot_comes_hands_it_on() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    first, second = waiting(slots, 0.0, 0.0)
    await asyncio.sleep(1.0)
    slots.give_back()
    first.cancel()
    assert await second == (True, 1.0)
    assert first.cancelled()
    assert await wait(slots) == (False, 6.0)


@in_virtual_time
async def test_who_is_cancelled_as_the_wait_ends_has_no_slot_to_hand_on() -> None:
    slots = Slots(1, 5.0)
    assert await slots.take()
    [gone] = waiting(slots, 0.0)
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(5.0 + 5e-10, gone.cancel)  # in the same turn, behind it
    await asyncio.wait([gone])
    assert gone.cancelled()
    assert await wait(slots) == (False, 10.0)


@in_virtual_time
async def test_when_the_last_has_left_nothing_is_watched() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    slots = Slots(1, 5.0)
    assert await slots.take()
    assert await wait(slots) == (False, 5.0)
    [served] = waiting(slots, 0.0)
    await asyncio.sleep(1.0)
    slots.give_back()
    assert await served == (True, 6.0)
    await asyncio.sleep(20.0)
    assert said == []
