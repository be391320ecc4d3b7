"""Admission: how many requests a turn of the loop starts, and how many posts run at once."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Sequence

from inngest_outbox.web.server.admission import Admission, AdmissionPolicy
from tests.support.virtual_time import in_virtual_time, now

MOST_TURNS = 50
SOME = AdmissionPolicy(turn_seconds=8, pieces_seconds=7, least=2, most=16)


class Clock:
    """CPU time, of which each request takes `each`."""

    def __init__(self, each: float = 1) -> None:
        self.now = 100.0
        self.each = each
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


async def start(admission: Admission, *, is_pipelined: bool = False) -> None:
    if not admission.starts_now():
        await admission.later_turn(is_pipelined=is_pipelined)


async def turns(admission: Admission, clock: Clock, names: Sequence[str]) -> list[list[str]]:
    """The names that each turn started of requests that came at once. `p…` are pipelined."""
    started: list[str] = []

    async def request(name: str) -> None:
        await start(admission, is_pipelined=name.startswith("p"))
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


async def sizes(admission: Admission, clock: Clock, count: int) -> list[int]:
    return [len(turn) for turn in await turns(admission, clock, ["a"] * count)]


async def test_a_turn_that_takes_too_long_halves_the_next_and_others_grow() -> None:
    clock = Clock()
    assert await sizes(Admission(SOME, clock), clock, 90) == [
        *(16, 8, 10, 5, 7, 9, 4, 6, 8, 10, 5, 2)
    ]


async def test_a_turn_starts_no_fewer_than_the_least_and_no_more_than_the_most() -> None:
    clock = Clock(each=100)
    admission = Admission(SOME, clock)
    assert await sizes(admission, clock, 36) == [16, 8, 4, 2, 2, 2, 2]
    clock.each = 0
    assert await sizes(admission, clock, 1) == [1]  # had room left: the next has no more
    grown = [2, 4, 6, 8, 10, 12, 14, 16, 16, 16]
    assert await sizes(admission, clock, sum(grown)) == grown


async def test_one_in_four_is_pipelined_while_others_wait() -> None:
    clock = Clock(each=0)
    admission = Admission(AdmissionPolicy(least=4, most=4), clock)
    first = [f"a{at}" for at in range(4)]
    names = [*first, *(f"p{at}" for at in range(6)), *(f"b{at}" for at in range(6))]
    assert await turns(admission, clock, names) == [
        first,
        ["p0", "b0", "b1", "b2"],
        ["p1", "b3", "b4", "b5"],
        ["p2", "p3", "p4", "p5"],
    ]


async def test_large_pieces_of_all_clients_share_the_time_of_a_turn() -> None:
    clock, parsed = Clock(each=4), list[int]()
    admission = Admission(SOME, clock)

    def piece(number: int) -> None:
        clock.now += clock.each
        parsed.append(number)

    for number in range(8):
        if admission.parses_now(functools.partial(piece, number)):
            piece(number)
    found = [list(parsed)]
    for _ in range(MOST_TURNS):
        parsed.clear()
        await asyncio.sleep(0)
        found += [list(parsed)] if parsed else []
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7]]
    asked = clock.asked
    for _ in range(MOST_TURNS):
        await asyncio.sleep(0)
    assert clock.asked == asked  # without work there are no turns


async def test_the_room_of_a_client_that_has_gone_is_for_the_next() -> None:
    admission = Admission(AdmissionPolicy(least=2, most=2), Clock(each=0))
    order: list[int] = []

    async def request(at: int) -> None:
        await start(admission)
        order.append(at)

    tasks = [asyncio.create_task(request(at)) for at in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [0, 1, 4, 5]


def posts(count: int, wait_seconds: float = 5.0) -> Admission:
    return Admission(AdmissionPolicy(posts=count, post_wait_seconds=wait_seconds))


async def take(admission: Admission) -> bool:
    return admission.takes_post() or await admission.post_place()


async def wait(admission: Admission, after: float = 0.0) -> tuple[bool, float]:
    """Whether a place was taken, and when that was known."""
    await asyncio.sleep(after)
    return await take(admission), round(now(), 6)


def waiting(admission: Admission, *starts: float) -> list[asyncio.Task[tuple[bool, float]]]:
    return [asyncio.create_task(wait(admission, after)) for after in starts]


@in_virtual_time
async def test_so_many_posts_run_at_once_and_each_other_waits_for_its_own_time() -> None:
    admission = posts(2)
    assert [await take(admission), await take(admission)] == [True, True]
    admission.end_post()
    assert [admission.takes_post(), admission.takes_post()] == [True, False]
    tasks = waiting(admission, 0.0, 2.0, 2.5)
    assert await asyncio.gather(*tasks) == [(False, 5.0), (False, 7.0), (False, 7.5)]


@in_virtual_time
async def test_a_place_goes_to_the_first_in_line_and_the_others_still_end_in_time() -> None:
    admission = posts(1)
    assert await take(admission)
    tasks = waiting(admission, 0.0, 1.0)
    asyncio.get_running_loop().call_later(3.0, admission.end_post)
    assert await asyncio.gather(*tasks) == [(True, 3.0), (False, 6.0)]


@in_virtual_time
async def test_64_leave_at_a_time_every_hundredth_of_a_second() -> None:
    admission = posts(1)
    assert await take(admission)
    tasks = waiting(admission, *[0.0] * 151)
    await asyncio.sleep(1.0)
    tasks.pop(0).cancel()  # it holds up no other one
    ended = Counter(await asyncio.gather(*tasks))
    assert ended == {(False, 5.0): 64, (False, 5.01): 64, (False, 5.02): 22}


@in_virtual_time
async def test_a_client_that_leaves_the_line_loses_no_place() -> None:
    admission = posts(1)
    assert await take(admission)
    gone, given = waiting(admission, 0.0, 0.0)
    await asyncio.sleep(1.0)
    gone.cancel()
    admission.end_post()
    given.cancel()  # as the place comes
    await asyncio.wait([gone, given])
    assert gone.cancelled()
    assert given.cancelled()
    assert await wait(admission) == (True, 1.0)
    [late] = waiting(admission, 0.0)
    asyncio.get_running_loop().call_at(6.0 + 5e-10, late.cancel)  # as its wait ends
    await asyncio.wait([late])
    assert late.cancelled()
    assert await wait(admission) == (False, 11.0)
