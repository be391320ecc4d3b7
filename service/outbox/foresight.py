"""Foresight: the batch that a claim is about to give, while its commit runs and when it has passed.

The invariant: a batch that was foreseen may never come. Until its commit has passed, nothing of it
may leave this process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from service.outbox.model import Batch


class _Told(NamedTuple):
    loop: asyncio.AbstractEventLoop
    foreseen: Callable[[Batch], None]
    committed: Callable[[Batch], None]


class Foresight:
    """Tells one listener, on its event loop."""

    def __init__(self) -> None:
        self._listener: _Told | None = None
        self._leaving: str | None = None

    @contextlib.contextmanager
    def told(
        self, foreseen: Callable[[Batch], None], committed: Callable[[Batch], None]
    ) -> Iterator[None]:
        """Until the block ends, the listener is called on the running loop with each batch.

        `foreseen` is called while the commit runs; `committed` when it has passed and somebody
        waits for the batch, before anybody gets the result of that commit.
        """
        self._listener = _Told(asyncio.get_running_loop(), foreseen, committed)
        try:
            yield
        finally:
            self._listener = None

    def foresee(self, batch: Batch) -> None:
        """Tell the listener, if there is one. May be called on any thread."""
        listener = self._listener
        if listener is not None:
            listener.loop.call_soon_threadsafe(listener.foreseen, batch)

    def commit(self, batch: Batch) -> None:
        """Tell the listener that the commit has passed. Called on its event loop."""
        listener = self._listener
        if listener is not None:
            listener.loop.call_soon(listener.committed, batch)

    def leaves(self, claim: str) -> None:
        """Note that the bytes of this claim leave. Called by the listener when it is committed."""
        self._leaving = claim

    def may_have_left(self, claim: str) -> bool:
        """Whether bytes of the claim that was committed last may have left."""
        return self._leaving == claim
