"""The tasks of a part, in the place of the supervisor that it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class WatchedTasks:
    """Runs each task once, by its name, until it is stopped."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Future[object]] = {}

    def watch(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Start it."""
        self.tasks[name] = asyncio.ensure_future(work())

    async def stop(self, name: str) -> None:
        """Cancel it."""
        self.tasks.pop(name).cancel()
