"""Foresight: the batch that a claim is about to give, while its commit runs.

The invariant: a batch that was foreseen may never come. Until its claim returns it, nothing of it
may leave this process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from service.outbox.model import Batch


class Foresight:
    """Tells one listener, on its event loop."""

    def __init__(self) -> None:
        self._tell: Callable[[Batch], None] | None = None

    @contextlib.contextmanager
    def told(self, listener: Callable[[Batch], None]) -> Iterator[None]:
        """Until the block ends, `listener` is called on the running loop with each batch."""
        loop = asyncio.get_running_loop()

        def tell(batch: Batch) -> None:
            loop.call_soon_threadsafe(listener, batch)

        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    def foresee(self, batch: Batch) -> None:
        """Tell the listener, if there is one. May be called on any thread."""
        tell = self._tell
        if tell is not None:
            tell(batch)
