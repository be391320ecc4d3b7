"""Work for the writer: kinds of it, and what waits to be written.

The invariant: every submitted work gets one result or one error.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from service.errors import OutboxUnavailableError

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Kind(Protocol[W_contra, R_co]):
    """A kind of work. `apply` runs on the database thread, the others on the event loop.

    A transaction may fail after `apply`: what it remembers counts only when `committed` comes.
    `synced` says whether its commits must be on disk before their results are handed out.
    """

    synced: ClassVar[bool]

    def apply(
        self, connection: sqlite3.Connection, works: Sequence[W_contra]
    ) -> Sequence[R_co | None]:
        """Do the works inside the open transaction; a result each, in order.

        A result that is an exception is raised to that work's submitter. None leaves the work
        waiting for a later group (a standing work).
        """
        ...

    def committed(
        self, works: Sequence[W_contra], results: Sequence[Any], taken: Sequence[bool]
    ) -> None:
        """After the commit; `taken` says whether the submitter still waits."""
        ...

    def failed(self, works: Sequence[W_contra]) -> None:
        """After a rollback: none of the works has left a trace."""
        ...


class Waiting(Generic[W]):
    """Works of one kind, each with the future that its submitter waits for."""

    __slots__ = ("futures", "works")

    def __init__(
        self, works: Iterable[W] = (), futures: Iterable[asyncio.Future[Any]] = ()
    ) -> None:
        self.works: list[W] = list(works)
        self.futures: list[asyncio.Future[Any]] = list(futures)

    def forget_cancelled(self) -> None:
        """Drop works that nobody waits for."""
        if any(future.cancelled() for future in self.futures):
            pairs = zip(self.works, self.futures, strict=True)
            live = [(work, future) for work, future in pairs if not future.cancelled()]
            self.works = [work for work, _ in live]
            self.futures = [future for _, future in live]

    def fail(self, error: Exception) -> None:
        """Raise `error` to every submitter that still waits."""
        for future in self.futures:
            if not future.done():
                mine = isinstance(error, OutboxUnavailableError)
                future.set_exception(OutboxUnavailableError(str(error)) if mine else error)


def fail(group: Mapping[Kind[Any, Any], Waiting[Any]], error: Exception) -> None:
    """Raise `error` to all who wait for the group, which has left no trace."""
    for kind, waiting in group.items():
        waiting.fail(error)
        kind.failed(waiting.works)
