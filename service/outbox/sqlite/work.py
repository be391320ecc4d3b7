"""Work for the writer: kinds of it, and the items that wait to be written.

The invariant: every submitted item gets one result or one error.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from service.errors import OutboxUnavailableError

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class WorkKind(Protocol[T_contra, R_co]):
    """A kind of work. `apply` runs on the database thread, the others on the event loop.

    A transaction may fail after `apply`: its changes in memory count only after `committed`.
    `synced` says whether its commits must be on disk before their results are handed out.
    """

    synced: ClassVar[bool]

    def apply(
        self, connection: sqlite3.Connection, items: Sequence[T_contra]
    ) -> Sequence[R_co | None]:
        """Do the items inside the open transaction; returns a result for each, in order.

        A result that is an exception is raised to that item's submitter. None leaves the item
        waiting for a later transaction; only a blocking kind returns it.
        """
        ...

    def committed(
        self, items: Sequence[T_contra], results: Sequence[Any], still_wanted: Sequence[bool]
    ) -> None:
        """After the commit; `still_wanted` says which submitters still wait."""
        ...

    def failed(self, items: Sequence[T_contra]) -> None:
        """After a rollback: none of the items has left a trace."""
        ...


class BlockingKind(WorkKind[T_contra, R_co], Protocol):
    """A kind whose items wait until they can be answered, beside any other work."""

    def due_in_seconds(self, *, waiting: bool) -> float | None:
        """Seconds until `apply` wants a transaction of its own; None: not before other work comes.

        `waiting` says whether items wait.
        """
        ...


class Waiting(Generic[T]):
    """Items of one kind, each with the future that its submitter waits for."""

    __slots__ = ("futures", "items")

    def __init__(
        self, items: Iterable[T] = (), futures: Iterable[asyncio.Future[Any]] = ()
    ) -> None:
        self.items: list[T] = list(items)
        self.futures: list[asyncio.Future[Any]] = list(futures)

    def forget_cancelled(self) -> None:
        """Drop items that nobody waits for."""
        if any(future.cancelled() for future in self.futures):
            pairs = zip(self.items, self.futures, strict=True)
            live = [(item, future) for item, future in pairs if not future.cancelled()]
            self.items = [item for item, _ in live]
            self.futures = [future for _, future in live]

    def fail(self, error: Exception) -> None:
        """Raise `error` to every submitter that still waits."""
        for future in self.futures:
            if not future.done():
                ours = isinstance(error, OutboxUnavailableError)
                future.set_exception(OutboxUnavailableError(str(error)) if ours else error)


Group = dict[WorkKind[Any, Any], Waiting[Any]]


def count_synced(group: Group) -> int:
    """How many items of the group wait for a sync, appends above all."""
    return sum(len(waiting.items) for kind, waiting in group.items() if kind.synced)


def fail_all(group: Group, error: Exception) -> None:
    """Raise `error` to every submitter of the group, which has left no trace."""
    for kind, waiting in group.items():
        waiting.fail(error)
        kind.failed(waiting.items)
