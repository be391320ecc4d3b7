"""A published value that is fetched once for all waiting callers, and cached for a while.

A failed fetch is not repeated for some seconds: callers get the failure at once. A cancelled caller
leaves the fetch to the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.errors import ProviderUnavailableError

_FAILURE_SECONDS = 5.0
_NEVER = float("-inf")

_Value = TypeVar("_Value")


class SharedValue(Generic[_Value]):
    """The result of `fetch`, fetched again when it is older than `fresh_seconds`.

    `fetch` raises ProviderUnavailableError and has its own time limit.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[_Value]],
        *,
        fresh_seconds: float,
        failure_seconds: float = _FAILURE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fresh_seconds = fresh_seconds
        self._failure_seconds = failure_seconds
        self._clock = clock
        self._found: tuple[_Value, float] | None = None  # and when it was fetched
        self._failure = ("", _NEVER)  # its words, and when it came
        self._renewed_at = _NEVER
        self._fetching: asyncio.Task[_Value] | None = None

    async def get(self) -> _Value:
        """The value, fetched if needed. Raises ProviderUnavailableError."""
        found = self._found
        if found is None or self._clock() - found[1] > self._fresh_seconds:
            return await self._shared_fetch()
        return found[0]

    @property
    def age_seconds(self) -> float:
        """The age of the value; infinite before the first fetch."""
        return self._clock() - (self._found[1] if self._found else _NEVER)

    async def renewed(self, every_seconds: float) -> _Value | None:
        """The value, fetched again. None when it was fetched in the last `every_seconds`.

        Raises ProviderUnavailableError.
        """
        if self._fetching is None:
            if self._clock() - self._renewed_at < every_seconds:
                return None
            self._renewed_at = self._clock()
        return await self._shared_fetch()

    async def _shared_fetch(self) -> _Value:
        if self._fetching is None:
            words, failed_at = self._failure
            if self._clock() - failed_at < self._failure_seconds:
                raise ProviderUnavailableError(words)
            self._fetching = asyncio.create_task(self._fetch_once(), name="shared-fetch")
            self._fetching.add_done_callback(self._end)
        return await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> _Value:
        try:
            value = await self._fetch()
        except ProviderUnavailableError as exc:
            self._failure = (str(exc), self._clock())
            raise
        self._found = (value, self._clock())
        return value

    def _end(self, task: asyncio.Task[_Value]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()  # every waiting caller may have left
