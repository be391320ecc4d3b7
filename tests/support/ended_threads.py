"""Threads that a test starts end with it: a late one would answer a loop that is closed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from tests.support.storage import PATIENCE_SECONDS


@contextlib.asynccontextmanager
async def ended_threads() -> AsyncIterator[None]:
    """Wait at the end for the threads that were started inside, but not for the loop's own."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("asyncio_"):
            await asyncio.to_thread(thread.join, PATIENCE_SECONDS)
            assert not thread.is_alive()
