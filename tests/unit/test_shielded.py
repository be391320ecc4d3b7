"""A task outlives a caller that is cancelled, and its error is told to those who wait."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from service.shielded import shielded


async def _fails_after(go: asyncio.Event) -> None:
    await go.wait()
    raise ValueError("late")


@pytest.mark.parametrize("ends", ["with an error", "cancelled"])
async def test_an_end_after_the_last_caller_has_left_is_not_logged(ends: str) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    go = asyncio.Event()
    task = asyncio.create_task(_fails_after(go))
    leaving, staying = (asyncio.create_task(shielded(task)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    staying.cancel()
    await asyncio.wait([leaving, staying])
    assert not task.done()
    if ends == "cancelled":
        task.cancel()
    go.set()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    del leaving, staying, task
    gc.collect()
    assert told == []


async def test_a_caller_that_stays_has_the_outcome() -> None:
    go = asyncio.Event()
    task = asyncio.create_task(_fails_after(go))
    leaving, staying = (asyncio.create_task(shielded(task)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    go.set()
    with pytest.raises(ValueError, match="late"):
        await staying
    assert await shielded(asyncio.create_task(asyncio.sleep(0, "result"))) == "result"
