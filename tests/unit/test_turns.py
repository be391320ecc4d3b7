"""How requests share the turns of the event loop."""

from __future__ import annotations

import asyncio

from service.web.server.turns import TurnPolicy, Turns
from tests.support.clock import Clock

MOST_TURNS = 500


async def started(turns: Turns, order: list[str], name: str, *, is_pipelined: bool = False) -> None:
    await turns.start(is_pipelined=is_pipelined)
    order.append(name)


def turns(most: int, share: int = 4) -> Turns:
    return Turns(TurnPolicy(least=1, most=most, pipelined_share=share), Clock(0.0))


async def started_in_each_turn(tasks: list[asyncio.Task[None]], order: list[str]) -> list[int]:
    counts = []
    for _ in range(MOST_TURNS):
        before = len(order)
        await asyncio.sleep(0)
        if len(order) > before:
            counts.append(len(order) - before)
    assert all(task.done() for task in tasks)
    return counts


async def test_a_turn_starts_only_so_many_requests_and_the_others_follow_in_order() -> None:
    order: list[str] = []
    one = turns(most=3)
    tasks = [asyncio.create_task(started(one, order, str(number))) for number in range(10)]
    counts = await started_in_each_turn(tasks, order)
    assert order == [str(number) for number in range(10)]
    assert max(counts) == 3
    assert len(counts) >= 4


async def test_pipelined_requests_wait_behind_others() -> None:
    order: list[str] = []
    one = turns(most=1, share=100)
    names = ["first", *(f"pipelined {number}" for number in range(5)), "late", "later"]
    tasks = [
        asyncio.create_task(started(one, order, name, is_pipelined=name.startswith("pipelined")))
        for name in names
    ]
    await started_in_each_turn(tasks, order)
    assert order[:3] == ["first", "late", "later"]
    assert len(order) == len(names)


async def test_pipelined_requests_keep_a_share_beside_others() -> None:
    order: list[str] = []
    one = turns(most=4)
    tasks = [
        asyncio.create_task(started(one, order, kind, is_pipelined=kind == "pipelined"))
        for kind in ["other"] * 40 + ["pipelined"] * 40
    ]
    await started_in_each_turn(tasks, order)
    assert order[4:44].count("pipelined") == 10


async def test_a_request_whose_client_has_gone_takes_no_place() -> None:
    order: list[str] = []
    one = turns(most=1)
    tasks = [asyncio.create_task(started(one, order, name)) for name in ("a", "gone", "b")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await started_in_each_turn(tasks, order)
    assert order == ["a", "b"]


async def test_turns_that_take_long_start_fewer_requests() -> None:
    order: list[str] = []
    clock = Clock(0.0)
    one = Turns(TurnPolicy(seconds=0.01, least=2, most=64), clock)

    async def slow() -> None:
        await one.start(is_pipelined=False)
        clock.now += 0.005
        order.append("slow")

    tasks = [asyncio.create_task(slow()) for _ in range(200)]
    counts = await started_in_each_turn(tasks, order)
    assert counts[0] == 64
    assert counts[-5:-1] == [2] * 4


async def test_turns_that_take_no_time_start_more_again() -> None:
    order: list[str] = []
    clock = Clock(0.0)
    one = Turns(TurnPolicy(seconds=0.01, least=2, most=64), clock)

    async def request(seconds: float) -> None:
        await one.start(is_pipelined=False)
        clock.now += seconds
        order.append("")

    tasks = [asyncio.create_task(request(0.02 if number < 100 else 0)) for number in range(600)]
    counts = await started_in_each_turn(tasks, order)
    fewest = min(counts[:-1])
    assert fewest < 10
    assert max(counts[counts.index(fewest) :]) > 20
