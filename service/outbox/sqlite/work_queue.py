"""The items that wait for the writer, and which of them share the next transaction.

The invariant: an item is in the queue or in one group that was taken, never in both.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

from service.outbox.sqlite.commit_delay import CommitDelay
from service.outbox.sqlite.work import (
    BlockingKind,
    Group,
    Waiting,
    WorkKind,
    count_synced,
    fail_all,
)

T = TypeVar("T")
R = TypeVar("R")


class WorkQueue:
    """Items by their kind, in the order in which a transaction applies them.

    Items of `blocking` want no transaction of their own unless they are new or due.
    """

    def __init__(
        self, kinds: Sequence[WorkKind[Any, Any]], blocking: BlockingKind[Any, Any]
    ) -> None:
        self._blocking = blocking
        self._waiting: Group = {kind: Waiting() for kind in (*kinds, blocking)}
        self._try_blocking = False
        self._loop = asyncio.get_running_loop()
        self.arrived = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(waiting.items) for waiting in self._waiting.values())

    @property
    def synced(self) -> int:
        """How many items wait for a sync."""
        return count_synced(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether items other than blocking ones wait."""
        return any(w.items for kind, w in self._waiting.items() if kind is not self._blocking)

    def submit(self, kind: WorkKind[T, R], item: T) -> asyncio.Future[R]:
        """Queue an item; the future has its result after the commit."""
        future: asyncio.Future[R] = self._loop.create_future()
        waiting = self._waiting[kind]
        waiting.items.append(item)
        waiting.futures.append(future)
        self._try_blocking |= kind is self._blocking
        self.arrived.set()
        return future

    def wake(self) -> None:
        """Try the blocking items again."""
        self._try_blocking = True
        self.arrived.set()

    def due_in_seconds(self) -> float | None:
        """Seconds until the blocking items want a transaction of their own.

        None: not by themselves.
        """
        waiting = bool(self._waiting[self._blocking].items)
        return self._blocking.due_in_seconds(waiting=waiting)

    async def gather(self, turns: int) -> None:
        """Let requests that have arrived join, for at most `turns` turns of the loop."""
        seen = -1
        for _ in range(turns):
            before, seen = seen, len(self)
            if before == seen:
                return
            await asyncio.sleep(0)

    async def wait_for_expected(self, delay: CommitDelay) -> None:
        """Let appends join that are on their way from other processes."""
        while seconds := delay.seconds(self.synced):
            self.arrived.clear()
            await self.wait(seconds)

    async def wait(self, seconds: float | None) -> None:
        """Wait until `arrived` is set, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.arrived.wait()

    def take(self, *, with_due: bool) -> Group:
        """All waiting items, if one of them wants a transaction.

        `with_due` says whether due blocking items want one.
        """
        due = self.due_in_seconds()
        is_due = due is not None and due <= 0 and with_due
        wanted, self._try_blocking = self._try_blocking or is_due, False
        if not wanted and not self.has_work:
            return {}
        self._waiting[self._blocking].forget_cancelled()
        group = {
            kind: waiting
            for kind, waiting in self._waiting.items()
            if waiting.items or (is_due and kind is self._blocking)
        }
        self._waiting |= {kind: Waiting() for kind in group}
        return group

    def answer(self, group: Group, results: Sequence[Sequence[Any]]) -> None:
        """Hand out the results of a commit. An item without one waits for a later transaction.

        Every kind knows of the commit before anybody has a result.
        """
        try:
            for (kind, waiting), outcomes in zip(group.items(), results, strict=True):
                still_wanted = [not future.done() for future in waiting.futures]
                kind.committed(waiting.items, outcomes, still_wanted)
        finally:
            for (kind, waiting), outcomes in zip(group.items(), results, strict=True):
                self._hand_out(kind, waiting, outcomes)

    def _hand_out(
        self, kind: WorkKind[Any, Any], waiting: Waiting[Any], outcomes: Sequence[Any]
    ) -> None:
        for item, future, outcome in zip(waiting.items, waiting.futures, outcomes, strict=True):
            if future.done():
                continue
            if outcome is None:
                self._add(kind, item, future)
            elif isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Raise `error` to all submitters."""
        waiting, self._waiting = self._waiting, {kind: Waiting() for kind in self._waiting}
        fail_all(waiting, error)

    def cancel(self) -> None:
        """Cancel all waiting items."""
        cancel_all(self._waiting)

    def _add(self, kind: WorkKind[Any, Any], item: object, future: asyncio.Future[Any]) -> None:
        waiting = self._waiting[kind]
        waiting.items.append(item)
        waiting.futures.append(future)


def cancel_all(group: Group) -> None:
    """Cancel all items of the group."""
    for future in (future for waiting in group.values() for future in waiting.futures):
        future.cancel()
