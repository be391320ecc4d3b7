"""What becomes of calls beside the opening and the closing of the intake."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres import intake as module
from tests.support.intake_world import World
from tests.support.storage import event


async def test_an_intake_that_is_not_open_takes_nothing() -> None:
    world = World()
    with pytest.raises(OutboxUnavailableError):
        await world.intake.append(event())
    async with world.intake as opened:
        assert opened is world.intake
    assert "outbox-write" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("calls", [1, 3])
async def test_a_close_waits_for_what_waits_and_takes_no_more(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 60.0)
    world = World()
    await world.intake.__aenter__()
    world.flush.may_end.clear()
    posts = []
    for _ in range(calls):
        posts.append(asyncio.ensure_future(world.intake.append(event())))
        await asyncio.sleep(0)
    await world.flush.began.wait()
    closing = asyncio.ensure_future(world.intake.__aexit__())
    for _ in range(5):
        await asyncio.sleep(0)
    with pytest.raises(OutboxUnavailableError):
        await world.intake.append(event())
    assert not closing.done()
    world.flush.may_end.set()
    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*posts)) == calls
        await closing


async def test_a_call_that_came_just_before_a_close_is_stored() -> None:
    world = World()
    await world.intake.__aenter__()
    posting = asyncio.ensure_future(world.intake.append(event()))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await world.intake.__aexit__()
        await posting


async def test_a_close_ends_for_callers_whom_the_database_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    world = World()
    await world.intake.__aenter__()
    world.flush.may_end.clear()
    posts = [asyncio.ensure_future(world.intake.append(event(size=9 * 2**20))) for _ in range(3)]
    await world.flush.began.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await world.intake.__aexit__()
        with pytest.raises(OutboxUnavailableError):
            await posts[2]
    world.flush.may_end.set()
    assert len(await asyncio.gather(*posts[:2])) == 2
