"""When a PostgreSQL queue asks for rows, and when it waits, with answers that a test decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Batch, Entry, Isolated, Retry, Settlement
from service.outbox.postgres.claims import CLAIM, CLAIM_EXPRESS, NEXT_DUE
from service.outbox.postgres.leases import RELEASE
from service.outbox.postgres.settlements import SETTLE, settle_values
from tests.support.queue_world import NOTHING, ROWS, World, cancelled_claim
from tests.support.storage import ask


@pytest.fixture
async def world() -> AsyncIterator[World]:
    found = World()
    async with found.queue as queue:
        assert queue is found.queue
        yield found


async def test_a_claim_gives_its_rows_and_their_bytes(world: World) -> None:
    world.pool.claims = [ROWS]
    batch = await world.queue.claim(ask(7))
    assert batch == Batch(batch.claim, tuple(Entry(*row[:-1]) for row in ROWS), b"{1},{2}")
    [given] = world.pool.of(CLAIM_EXPRESS)
    assert given["claim"] == batch.claim
    assert given["oldest"] == 7
    assert await world.held() == {batch.claim}


async def test_each_claim_has_a_name_of_its_own(world: World) -> None:
    other = World()
    names = []
    for one in (world, world, other):
        one.pool.claims = [ROWS]
        names.append((await one.queue.claim(ask())).claim)
    assert len(set(names)) == 3
    assert names[0].split(":")[0] == names[1].split(":")[0] != names[2].split(":")[0]


async def test_a_claim_is_not_repeated_and_has_five_seconds(world: World) -> None:
    world.pool.claims = [ROWS]
    await world.queue.claim(ask())
    [how] = [how for statement, _, how in world.pool.asked if statement == CLAIM_EXPRESS]
    assert how == {"within_seconds": 5.0, "repeat_with": None}


async def test_a_claim_searches_for_express_rows_while_some_may_wait(world: World) -> None:
    world.pool.claims = [ROWS] * 4
    for _ in range(2):
        await world.queue.claim(ask(1))
    turns = [given["express_turn"] for given in world.pool.of(CLAIM_EXPRESS)]
    assert sorted(turns) == [False, True]
    world.express.look_ended(world.express.look_begins(), found=False)
    for _ in range(2):
        await world.queue.claim(ask(1))
    assert [given["express_turn"] for given in world.pool.of(CLAIM)] == [False, False]


async def test_claims_of_one_process_come_one_after_the_other(world: World) -> None:
    world.pool.claims = [ROWS, ROWS]
    world.pool.may_answer.clear()
    claims = [asyncio.create_task(world.queue.claim(ask())) for _ in range(2)]
    for _ in range(10):
        await asyncio.sleep(0)
    world.pool.may_answer.set()
    one, two = await asyncio.gather(*claims)
    assert one.claim != two.claim
    assert world.pool.most_at_once == 1


@pytest.mark.parametrize(
    ("due", "waited"),
    [(None, 20.0), (3.0, 3.0), (25.0, 20.0), (0.004, 0.005), (-1.0, 0.005)],
)
async def test_a_claim_that_finds_nothing_waits_for_the_next_due_row(
    world: World, due: float | None, waited: float
) -> None:
    world.pool.next_due = [(due, False)] * 3
    assert await world.waits() == [waited] * 3
    assert world.wakeup.here == 3
    assert world.marks.looks == []


async def test_a_claim_wakes_for_what_came_while_it_asked(world: World) -> None:
    world.wakeup.generation = 7
    world.wakeup.patience = 1
    world.pool.may_answer.clear()
    claim = asyncio.create_task(world.waits())
    await world.pool.began.wait()
    world.wakeup.generation = 8
    world.pool.may_answer.set()
    await claim
    assert [generation for generation, _ in world.wakeup.waits] == [7]


@pytest.mark.parametrize("isolated", list(Isolated))
async def test_isolated_rows_end_a_wait_where_they_are_wanted(
    world: World, isolated: Isolated
) -> None:
    world.wakeup.patience = 1
    claim = asyncio.create_task(world.queue.claim(ask(isolated=isolated)))
    await world.wakeup.waited.wait()
    claim.cancel()
    assert world.pool.of(NEXT_DUE) == [
        {"isolated": isolated is not Isolated.NONE, "window": 50_000}
    ]


async def test_rows_beyond_the_window_are_looked_for_at_once_and_further_away(
    world: World,
) -> None:
    world.wakeup.patience = 4
    world.pool.next_due = [(None, True), (9.0, True), (9.0, False)]
    assert await world.waits() == [0.005, 0.005, 9.0, 20.0]
    assert world.marks.looks == [0.0, 0.0]
    windows = [given["window"] for given in world.pool.of(CLAIM_EXPRESS)]
    assert windows == [50_000, 100_000, 200_000, 50_000]


async def test_the_window_is_bounded_and_narrow_again_after_a_claim(world: World) -> None:
    world.wakeup.patience = 40
    world.pool.next_due = [(None, True)] * 40
    await world.waits()
    windows = [given["window"] for given in world.pool.of(CLAIM_EXPRESS)]
    assert max(windows) == windows[-1] == 2**40
    world.pool.claims = [ROWS]
    await world.queue.claim(ask())
    world.pool.claims = [ROWS]
    await world.queue.claim(ask())
    assert world.pool.of(CLAIM_EXPRESS)[-1]["window"] == 50_000


async def test_a_cancelled_claim_releases_what_it_gets_as_not_sent(world: World) -> None:
    world.pool.released = 2
    await cancelled_claim(world)
    assert world.pool.of(RELEASE) == []
    world.pool.may_answer.set()
    async with asyncio.timeout(5):
        await world.wakeup.woken.wait()
    [asked] = world.pool.of(CLAIM_EXPRESS)
    assert world.pool.of(RELEASE) == [{"claims": [asked["claim"]], "sent": False}]
    assert world.wakeup.due == 1
    assert await world.held() == set()


@pytest.mark.parametrize("answer", [NOTHING, OutboxUnavailableError(), asyncio.CancelledError()])
async def test_a_cancelled_claim_without_rows_releases_nothing(
    world: World, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world.pool.claims = [answer]
    world.pool.may_answer.clear()
    claim = asyncio.create_task(world.queue.claim(ask()))
    await world.pool.began.wait()
    claim.cancel()
    world.pool.may_answer.set()
    with contextlib.suppress(asyncio.CancelledError):
        await claim
    await world.queue.__aexit__()
    assert all(not given["sent"] or not given["claims"] for given in world.pool.of(RELEASE))
    assert caplog.records == []


async def test_nothing_is_kept_of_a_cancelled_claim_that_was_released(world: World) -> None:
    await cancelled_claim(world)
    world.pool.may_answer.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*world.queue._attempts)
        await asyncio.gather(*world.queue._releases)
        await asyncio.sleep(0)  # what was gathered is forgotten a turn later
    assert world.queue._attempts == world.queue._releases == set()


async def test_a_cancelled_claim_that_can_not_be_released_is_by_the_next(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.pool.release_error = OutboxUnavailableError()
    await cancelled_claim(world)
    world.pool.may_answer.set()
    await world.pool.releasing.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert caplog.records == []
    world.pool.release_error, world.pool.claims = None, [ROWS]
    await world.queue.claim(ask())
    first, again = world.pool.of(RELEASE)
    assert first == again


async def test_a_claim_whose_answer_was_lost_is_released_before_the_next(world: World) -> None:
    world.pool.claims = [OutboxUnavailableError(), ROWS]
    with pytest.raises(OutboxUnavailableError):
        await world.queue.claim(ask())
    batch = await world.queue.claim(ask())
    lost, again = world.pool.of(CLAIM_EXPRESS)
    assert again["claim"] == batch.claim != lost["claim"]
    assert world.pool.of(RELEASE) == [{"claims": [lost["claim"]], "sent": False}]
    statements = [statement for statement, _, _ in world.pool.asked]
    assert statements == [CLAIM_EXPRESS, RELEASE, CLAIM_EXPRESS]
    assert world.wakeup.due == 0
    assert await world.held() == {batch.claim}


async def test_rows_of_a_lost_claim_wake_the_other_claims(world: World) -> None:
    world.pool.claims, world.pool.released = [OutboxUnavailableError(), ROWS], 1
    with pytest.raises(OutboxUnavailableError):
        await world.queue.claim(ask())
    world.express.look_ended(world.express.look_begins(), found=False)
    await world.queue.claim(ask())
    assert world.wakeup.due == 1
    assert world.express.may_wait


@pytest.mark.parametrize("due_now", [False, True])
@pytest.mark.parametrize("is_over", [False, True])
async def test_a_settlement_wakes_claims_and_ends_its_own(
    world: World, *, due_now: bool, is_over: bool
) -> None:
    world.pool.claims = [ROWS]
    batch = await world.queue.claim(ask())
    settlement = Settlement(batch.claim, delivered=[1])
    world.pool.settled = (4, due_now, is_over)
    assert await world.queue.settle(settlement) == 4
    [(given, how)] = [(given, how) for said, given, how in world.pool.asked if said == SETTLE]
    assert given == settle_values(settlement)
    assert how == {"within_seconds": 5.0, "repeat_with": {"repeated": True}}
    assert world.wakeup.due == int(due_now)
    assert await world.held() == (set() if is_over else {batch.claim})


async def test_rows_that_come_back_may_be_express(world: World) -> None:
    world.express.look_ended(world.express.look_begins(), found=False)
    await world.queue.settle(Settlement("c", delivered=[1]))
    assert not world.express.may_wait
    await world.queue.settle(Settlement("c", retry=[Retry(1, 0, 0, isolated=False)]))
    assert world.express.may_wait
