"""Hands over together what comes in one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Gathering(Generic[T]):
    """Calls `hand_over` at the end of a turn with all that was added in it, in its order."""

    def __init__(self, hand_over: Callable[[Sequence[T]], None]) -> None:
        self._hand_over = hand_over
        self._items: list[T] = []

    def add(self, item: T) -> None:
        """Hand `item` over soon."""
        if not self._items:
            asyncio.get_running_loop().call_soon(self.end)
        self._items.append(item)

    def end(self) -> None:
        """Hand over now what was added; nothing without any."""
        items, self._items = self._items, []
        if items:
            self._hand_over(items)
