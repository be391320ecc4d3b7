"""How many requests each turn of the loop starts, and which."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.web.server.turns import TurnPolicy, Turns

MOST_TURNS = 50
SOME = TurnPolicy(seconds=8, least=2, most=16, pipelined_share=4)


class Clock:
    """CPU time, of which each request takes `each`."""

    def __init__(self, each: float = 1) -> None:
        self.now = 100.0
        self.each = each
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


async def run(turns: Turns, clock: Clock, names: Sequence[str]) -> list[list[str]]:
    """Start a request of each name at once; which started in each turn. `p…` are pipelined."""
    started: list[str] = []

    async def request(name: str) -> None:
        await turns.start(is_pipelined=name.startswith("p"))
        clock.now += clock.each
        started.append(name)

    tasks = [asyncio.create_task(request(name)) for name in names]
    found = []
    for _ in range(MOST_TURNS):
        before = len(started)
        await asyncio.sleep(0)
        if len(started) > before:
            found.append(started[before:])
    assert all(task.done() for task in tasks)
    return found


async def sizes(turns: Turns, clock: Clock, count: int) -> list[int]:
    return [len(turn) for turn in await run(turns, clock, ["a"] * count)]


async def test_a_turn_that_takes_too_long_halves_the_next_and_others_grow() -> None:
    clock = Clock()
    turns = Turns(SOME, clock)
    assert await sizes(turns, clock, 90) == [16, 8, 10, 5, 7, 9, 4, 6, 8, 10, 5, 2]


async def test_a_turn_starts_no_fewer_than_the_least() -> None:
    clock = Clock(each=100)
    turns = Turns(SOME, clock)
    assert await sizes(turns, clock, 36) == [16, 8, 4, 2, 2, 2, 2]
    three = Turns(TurnPolicy(seconds=8, least=3, most=16), clock)
    assert await sizes(three, clock, 34) == [16, 8, 4, 3, 3]


async def shrunk(clock: Clock) -> Turns:
    """Turns that start two requests each."""
    clock.each = 100
    turns = Turns(SOME, clock)
    await sizes(turns, clock, 31)
    clock.each = 0
    return turns


async def test_a_turn_starts_no_more_than_the_most() -> None:
    clock = Clock()
    turns = await shrunk(clock)
    expected = [2, 4, 6, 8, 10, 12, 14, 16, 16, 16]
    assert await sizes(turns, clock, sum(expected)) == expected


async def test_a_turn_without_room_left_makes_the_next_larger_and_another_does_not() -> None:
    clock = Clock()
    turns = await shrunk(clock)
    assert await sizes(turns, clock, 1) == [1]
    assert await sizes(turns, clock, 2) == [2]
    assert await sizes(turns, clock, 4) == [4]
    assert await sizes(turns, clock, 5) == [5]
    assert await sizes(turns, clock, 7) == [6, 1]


async def test_pipelined_requests_that_wait_make_it_larger_too() -> None:
    clock = Clock()
    turns = await shrunk(clock)
    assert [len(one) for one in await run(turns, clock, ["p"] * 12)] == [2, 4, 6]


async def test_without_a_policy_256_start_at_once() -> None:
    clock = Clock(each=0)
    assert await sizes(Turns(None, clock), clock, 300) == [256, 44]
    assert await sizes(Turns(), clock, 300) == [256, 44]


async def test_one_in_four_is_pipelined_while_others_wait() -> None:
    clock = Clock(each=0)
    turns = Turns(TurnPolicy(seconds=8, least=4, most=4, pipelined_share=4), clock)
    first = [f"a{at}" for at in range(4)]
    names = [*first, *(f"p{at}" for at in range(6)), *(f"b{at}" for at in range(6))]
    assert await run(turns, clock, names) == [
        first,
        ["p0", "b0", "b1", "b2"],
        ["p1", "b3", "b4", "b5"],
        ["p2", "p3", "p4", "p5"],
    ]


async def test_no_turn_is_waited_for_where_nothing_was_started() -> None:
    clock = Clock()
    turns = Turns(SOME, clock)
    await sizes(turns, clock, 40)
    for _ in range(3):
        await asyncio.sleep(0)
    looks = clock.looks
    for _ in range(5):
        await asyncio.sleep(0)
    assert clock.looks == looks


async def test_the_room_of_the_gone_is_for_the_next() -> None:
    clock = Clock(each=0)
    turns = Turns(TurnPolicy(seconds=8, least=2, most=2), clock)
    order: list[int] = []

    async def request(at: int) -> None:
        await turns.start(is_pipelined=False)
        order.append(at)

    tasks = [asyncio.create_task(request(at)) for at in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [0, 1, 4, 5]
