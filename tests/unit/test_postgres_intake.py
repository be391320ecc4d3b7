"""What an append reserves, waits for and reports, without a database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from service.errors import (
    IdempotencyKeyReusedError,
    OutboxUnavailableError,
    TooManyPendingError,
)
from service.outbox.keys import IdempotencyKey
from service.outbox.postgres import intake as module
from tests.support.intake_world import World
from tests.support.storage import event

MEBI = 2**20


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.intake:
        yield made


def key(name: str, digest: bytes = b"1") -> IdempotencyKey:
    return IdempotencyKey(name, digest)


async def test_a_stored_call_keeps_its_place_with_its_transaction(world: World) -> None:
    events = event(size=300), event(size=400)
    receipts = await world.intake.append_all(events, (None, None))
    assert [one.event_id for one in receipts] == [one.id for one in events]
    assert world.quota.admitted == [("u-1", 2, 700)]
    assert world.quota.entered_as == [("u-1", (2, 700), (2, 700), 77)]
    [[item]] = world.flush.batches
    assert (item.express, item.events) == (False, events)


async def test_one_event_is_a_call_of_one(world: World) -> None:
    post = event("small")
    assert (await world.intake.append(post, key=key("a"))).event_id == post.id
    [[item]] = world.flush.batches
    assert (item.events, item.keys, item.express) == ((post,), (key("a"),), True)


async def test_a_repetition_takes_no_place(world: World) -> None:
    events = event(size=300), event(size=400)
    world.flush.replayed = {events[0].id}
    await world.intake.append_all(events, (key("a"), key("b")))
    assert world.quota.entered_as == [("u-1", (2, 700), (1, 400), 77)]


@pytest.mark.parametrize("error", [OutboxUnavailableError(), IdempotencyKeyReusedError()])
async def test_a_call_that_is_not_stored_gives_its_place_back(
    world: World, error: Exception
) -> None:
    world.flush.error = error
    with pytest.raises(type(error)):
        await world.intake.append(event(size=300))
    assert world.quota.entered_as == [("u-1", (1, 300), (0, 0), None)]


async def test_a_call_whose_caller_left_may_be_stored_and_keeps_its_place(world: World) -> None:
    world.flush.may_end.clear()
    posting = asyncio.ensure_future(world.intake.append(event(size=300)))
    await world.flush.began.wait()
    posting.cancel()
    await asyncio.gather(posting, return_exceptions=True)
    assert world.quota.entered_as == [("u-1", (1, 300), (1, 300), None)]
    world.flush.may_end.set()


async def test_nothing_is_asked_for_no_event(world: World) -> None:
    assert await world.intake.append_all((), ()) == ()
    assert world.quota.admitted == []


async def test_one_key_for_two_events_of_a_call_is_refused_before_all(world: World) -> None:
    with pytest.raises(IdempotencyKeyReusedError):
        await world.intake.append_all((event(), event()), (key("a"), key("a", b"2")))
    keys = (key("a"), None, key("a", b"2"))
    with pytest.raises(IdempotencyKeyReusedError):
        await world.intake.append_all((event(), event(), event()), keys)
    assert world.quota.admitted == []
    assert await world.intake.append_all((event(), event()), (None, None))


async def test_events_of_two_owners_are_no_call(world: World) -> None:
    with pytest.raises(ValueError, match="owner"):
        await world.intake.append_all((event("a"), event("b")), (None, None))


@pytest.mark.parametrize("keys", [(None,), (key("new"),)])
async def test_a_call_beyond_the_limit_is_refused(
    world: World, keys: tuple[IdempotencyKey | None]
) -> None:
    world.quota.refusals = 1
    with pytest.raises(TooManyPendingError):
        await world.intake.append_all((event(),), keys)
    assert world.flush.batches == []
    assert world.quota.entered_as == []


async def test_a_call_that_is_there_passes_a_full_outbox(world: World) -> None:
    world.quota.refusals = 1
    world.pool.use("a", "first")
    [receipt] = await world.intake.append_all((event(),), (key("a"),))
    assert (receipt.event_id, receipt.replayed) == ("first", True)
    assert world.flush.batches == []


async def test_of_a_call_that_is_there_in_part_only_the_rest_needs_room(world: World) -> None:
    world.quota.refusals = 1
    world.pool.use("a", "first")
    events = event(size=300), event(size=400)
    await world.intake.append_all(events, (key("a"), key("b")))
    assert world.quota.admitted == [("u-1", 1, 400)]
    world.quota.refusals = 2
    with pytest.raises(TooManyPendingError):
        await world.intake.append_all(events, (key("a"), key("b")))


async def test_a_call_of_which_one_event_has_a_key_is_looked_for_too(world: World) -> None:
    world.quota.refusals = 1
    world.pool.use("a", "first")
    await world.intake.append_all((event(size=300), event(size=400)), (None, key("a")))
    assert world.quota.admitted == [("u-1", 1, 300)]


async def test_an_event_is_found_in_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*asked: object) -> tuple[object, ...]:
        return asked

    monkeypatch.setattr(module, "find_row", found)
    assert await world.intake.find("id") == (world.pool, "id")


async def test_two_statements_run_at_once_and_what_comes_meanwhile_shares_the_next(
    world: World,
) -> None:
    world.flush.may_end.clear()
    posts = []
    for _ in range(2):
        world.flush.began.clear()
        posts.append(asyncio.ensure_future(world.intake.append(event())))
        await world.flush.began.wait()
    posts += [asyncio.ensure_future(world.intake.append(event())) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert [len(batch) for batch in world.flush.batches] == [1, 1]
    world.flush.may_end.set()
    await asyncio.gather(*posts)
    assert [len(batch) for batch in world.flush.batches] == [1, 1, 3]


async def test_calls_that_do_not_fit_one_statement_all_get_theirs(world: World) -> None:
    world.flush.may_end.clear()
    calls = [(event(size=5 * MEBI),) for _ in range(5)]
    posts = [asyncio.ensure_future(world.intake.append_all(one, (None,))) for one in calls]
    await world.flush.began.wait()
    world.flush.may_end.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*posts)
    assert [len(batch) for batch in world.flush.batches] == [1] * 5


@pytest.mark.parametrize(
    ("events", "size", "seconds"),
    [(1, 200, 2.0), (1500, 200, 3.0), (1, 12 * MEBI, 3.0), (4000, 200, 6.0), (999, 200, 2.0)],
)
async def test_a_large_call_may_wait_longer(
    world: World, events: int, size: int, seconds: float
) -> None:
    before = time.monotonic()
    one = event(size=size)
    await world.intake.append_all([one] * events, [None] * events)
    [[item]] = world.flush.batches
    assert seconds <= item.deadline - before < seconds + 0.9


async def test_the_first_calls_find_the_statement_planned_for_each_flush(world: World) -> None:
    assert world.flush.warm == 2


async def test_events_without_a_caller_s_await_are_stored(world: World) -> None:
    post = event()
    [receipt] = await world.intake.start((post,), (None,))
    assert receipt.event_id == post.id
