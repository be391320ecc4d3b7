"""Waiting for a task that more than one caller may wait for, or none."""

from __future__ import annotations

import asyncio
from typing import TypeVar

_Result = TypeVar("_Result")


async def shielded(task: asyncio.Future[_Result]) -> _Result:
    """The result of a task, which continues without a caller that is cancelled.

    Its error is then not logged: from Python 3.14 on, asyncio.shield tells the event loop of it.
    """
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.add_done_callback(_hear)
        raise
    return task.result()


def _hear(task: asyncio.Future[_Result]) -> None:
    if not task.cancelled():
        task.exception()
