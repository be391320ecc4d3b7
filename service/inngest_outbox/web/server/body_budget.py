"""Shares memory among the large bodies under way, so that many of them can't take it all.

A body counts from before it is read until its request ends. The invariant: the bodies that count
have `total_bytes` at most, and those of one owner a quarter of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections import Counter
from dataclasses import dataclass

from aiohttp import web

from inngest_outbox.errors import OutboxUnavailableError

# A body of so many bytes or fewer does not count.
FREE_BYTES = 64 * 1024
WAIT_SECONDS = 5.0
_OWNERS = 4
_IDLE_SECONDS = 1.0


class Share:
    """The bytes that one body of `owner` counts."""

    __slots__ = ("_budget", "owner", "size_bytes")

    def __init__(self, budget: BodyBudget, owner: str) -> None:
        self._budget = budget
        self.owner = owner
        self.size_bytes = 0

    async def grow(self, size_bytes: int) -> None:
        """Let the body have `size_bytes` in all; waits for room.

        A body above one owner's part counts as all of it. Raises OutboxUnavailableError when there
        was no room in time; the share is then as it was.
        """
        await self._budget.grow(self, size_bytes)

    def release(self) -> None:
        """The body is no longer there."""
        self._budget.release(self)


@dataclass(slots=True, eq=False)
class _Waiter:
    share: Share
    more_bytes: int
    given: asyncio.Future[None]


class BodyBudget:
    """The budget of one process. A body waits `wait_seconds` for its share."""

    def __init__(self, total_bytes: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._free = total_bytes
        self._owner_bytes = total_bytes // _OWNERS
        self._wait_seconds = wait_seconds
        self._owners: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []

    async def grow(self, share: Share, size_bytes: int) -> None:
        """See `Share.grow`."""
        more = min(size_bytes, self._owner_bytes) - share.size_bytes
        if self._has_room(share.owner, more):
            self._give(share, more)
            return
        waiter = _Waiter(share, more, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter.given
        except TimeoutError:
            raise OutboxUnavailableError(
                "Too many large requests are under way. Try again shortly."
            ) from None
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def release(self, share: Share) -> None:
        """Give the bytes of `share` to those that wait, in their order."""
        self._free += share.size_bytes
        self._owners[share.owner] -= share.size_bytes
        self._owners = +self._owners
        if share.size_bytes and not self._owners:
            asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._give_back)
        for waiter in list(self._waiting):
            if self._has_room(waiter.share.owner, waiter.more_bytes):
                self._waiting.remove(waiter)
                self._give(waiter.share, waiter.more_bytes)
                if not waiter.given.done():
                    waiter.given.set_result(None)

    def _give_back(self) -> None:
        """Return what the allocator keeps of large bodies to the system, beside the loop."""
        if not self._owners:
            with contextlib.suppress(RuntimeError):  # the process stops, and starts no thread
                asyncio.get_running_loop().run_in_executor(None, return_memory)

    def _has_room(self, owner: str, more: int) -> bool:
        return more <= self._free and self._owners[owner] + more <= self._owner_bytes

    def _give(self, share: Share, more: int) -> None:
        self._free -= more
        self._owners[share.owner] += more
        share.size_bytes += more


def return_memory() -> None:
    """Give the memory that the allocator keeps, and nothing uses, back to the system."""
    with contextlib.suppress(AttributeError, OSError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


body_budget_key = web.AppKey("body_budget", BodyBudget)
