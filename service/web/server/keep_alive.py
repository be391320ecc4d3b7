"""Ends connections that had no request for too long, by one timer for all of them.

aiohttp's own timer of each connection takes 0.7 KiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

_LOOKS = 16


class NoTimer:
    """Stands where aiohttp keeps the timer of one connection."""

    def cancel(self) -> None:
        """Do nothing."""


class KeptConnection(Protocol):
    """A connection that may have no request."""

    def close_if_idle(self, now: float) -> None:
        """Close the connection if its time without a request is over at `now`."""
        ...


class KeepAlive:
    """Looks at all `connections` 16 times in `seconds`, while there are any."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: Collection[KeptConnection],
        seconds: float,
    ) -> None:
        self._loop = loop
        self._connections = connections
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look from now on. Does nothing while it looks already."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for connection in list(self._connections):
            connection.close_if_idle(now)
        if self._connections:
            self.begin()
