"""A time limit for something that has begun and should end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """A limit of so many seconds. It refers to what it calls only while it runs."""

    __slots__ = ("_loop", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether the time is counted."""
        return self._timer is not None

    def start(self, on_late: Callable[[], object]) -> None:
        """Call `on_late` when the time is over. Does nothing while the time is counted already."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._end, on_late)

    def stop(self) -> None:
        """Stop counting. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, on_late: Callable[[], object]) -> None:
        self._timer = None
        on_late()
