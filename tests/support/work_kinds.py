"""Kinds of work for a writer that do nothing but remember what they are told, and its commits."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.work import Group


def sqlite_error(name: str) -> sqlite3.OperationalError:
    """What SQLite raises with this code, such as SQLITE_FULL."""
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
    return error


def fault(name: str) -> OutboxUnavailableError:
    """The outbox's error for what SQLite raises with this code."""
    error = OutboxUnavailableError(f"The outbox's file failed. ({name})")
    error.__cause__ = sqlite_error(name)
    return error


class Kind:
    """`told` has what it heard after commits and rollbacks. Its results are what `answer` makes.

    Where it is the blocking one, it is due at `due_at` of the loop's time.
    """

    def __init__(self, *, synced: bool = True) -> None:
        self.synced = synced  # type: ignore[misc]
        self.told: list[tuple[Any, ...]] = []
        self.answer: Callable[[Any], Any] = lambda item: f"done {item}"
        self.due_at: float | None = None
        self.after_commit: Callable[[], object] = lambda: None

    def apply(self, connection: sqlite3.Connection, items: Sequence[Any]) -> list[Any]:
        del connection
        return [self.answer(item) for item in items]

    def committed(
        self, items: Sequence[Any], results: Sequence[Any], still_wanted: Sequence[bool]
    ) -> None:
        self.told.append(("committed", list(items), list(results), list(still_wanted)))
        self.after_commit()

    def failed(self, items: Sequence[Any]) -> None:
        self.told.append(("failed", list(items)))

    def due_in_seconds(self, *, waiting: bool) -> float | None:
        del waiting
        if self.due_at is None:
            return None
        return max(0.0, self.due_at - asyncio.get_running_loop().time())


class Commits:
    """A store whose commits, probes and hops do what the test says; it remembers the groups."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.groups: list[dict[Any, list[Any]]] = []
        self.probed_at: list[float] = []
        self.sync_due_at: float | None = None
        self.stopped = False
        self.before: Callable[[dict[Any, list[Any]]], Any] = lambda group: None
        self.probing: Callable[[], Any] = lambda: None

    async def commit_once(self, group: Group) -> list[list[Any]]:
        """What each kind answers, after `before` has run, or waited for what it returns."""
        items = {kind: list(waiting.items) for kind, waiting in group.items()}
        self.groups.append(items)
        await _soon(self.before(items))
        if not group:
            self.sync_due_at = None
        return [kind.apply(None, of) for kind, of in items.items()]  # type: ignore[arg-type]

    async def probe(self) -> None:
        """Note the time, and do what `probing` does."""
        self.probed_at.append(self.loop.time())
        await _soon(self.probing())

    async def run(self, work: Callable[[], Any]) -> Any:
        """What `work` returns."""
        return work()

    async def stop(self) -> None:
        """Note it."""
        self.stopped = True


async def _soon(result: Any) -> None:
    if asyncio.iscoroutine(result):
        await result
