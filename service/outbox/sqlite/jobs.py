"""Single jobs inside the writer's transactions: operators' changes, records, settings."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from service.outbox.sqlite.writer import SqliteWriter

T = TypeVar("T")
Run = Callable[[sqlite3.Connection], T]


def nothing(result: object) -> None:
    """Do nothing: for a job that changes nothing in memory."""


class Job(NamedTuple):
    """`run` returns a value that is not None; `then` gets it after the commit.

    `then` is called even when nobody waits for the result any more.
    """

    run: Run[Any]
    then: Callable[[Any], None] = nothing


class SqliteJobs:
    """The kind of work that runs jobs (see `WorkKind`)."""

    synced: ClassVar[bool] = True

    def apply(self, connection: sqlite3.Connection, items: Sequence[Job]) -> list[Any]:
        """The result of each job."""
        return [item.run(connection) for item in items]

    def committed(
        self, items: Sequence[Job], results: Sequence[Any], still_wanted: Sequence[bool]
    ) -> None:
        """Change in memory what the jobs changed in the file."""
        del still_wanted
        for item, result in zip(items, results, strict=True):
            item.then(result)

    def failed(self, items: Sequence[Job]) -> None:
        """Nothing to undo."""


class JobRunner:
    """Runs jobs through a writer."""

    def __init__(self, writer: SqliteWriter, jobs: SqliteJobs) -> None:
        self._writer = writer
        self._jobs = jobs

    async def run(self, run: Run[T], then: Callable[[T], None] = nothing) -> T:
        """The result of `run`, committed and synced. Raises OutboxUnavailableError."""
        result: T = await self._writer.submit(self._jobs, Job(run, then))
        return result
