"""Statements on PostgreSQL: each within a deadline, or OutboxUnavailableError.

Every statement is a transaction of its own, and most are safe to repeat: when its connection
breaks, a statement runs again on another one while its deadline lasts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.postgres.database.availability import Availability
from inngest_outbox.outbox.postgres.database.connection import schema_of, statements
from inngest_outbox.outbox.postgres.database.executor import LostError, PostgresExecutor
from inngest_outbox.outbox.postgres.database.faults import REPEAT


@dataclass(frozen=True, slots=True)
class PoolTimings:
    """The longest waits, in seconds.

    A statement waits `connection_seconds` for a connection that is free. It has an answer within
    `statement_seconds`, unless its caller names another time; one that a person asks for, within
    `ask_seconds`.
    """

    connection_seconds: float = 1.0
    statement_seconds: float = 2.0
    ask_seconds: float = 10.0


_AS_BEFORE: Mapping[str, object] = MappingProxyType({})


class PostgresPool:
    """The process's way to one database; an async context manager."""

    def __init__(self, url: str, *, timings: PoolTimings | None = None) -> None:
        self.timings = timings or PoolTimings()
        self._statements = statements(schema_of(url))
        self._executor = PostgresExecutor(url, self.timings.connection_seconds)
        self._availability = Availability(url, self._executor.renew)

    async def __aenter__(self) -> Self:
        await self._executor.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._availability.close()
        await self._executor.__aexit__()

    @property
    def failure(self) -> str | None:
        """Why the database takes no writes, None while it does."""
        return self._availability.failure

    @property
    def returns(self) -> int:
        """The number of times that the database came back after a loss.

        It may be another server then, which lacks the last commits: numbers that only grow may be
        given again.
        """
        return self._availability.returns

    async def run(
        self,
        statement: str,
        given: Mapping[str, object] | None = None,
        *,
        within_seconds: float | None = None,
        repeat_with: Mapping[str, object] | None = _AS_BEFORE,
        replicated: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run the statement of this name; returns its rows.

        When its connection breaks the statement is run again, with the parameters of `repeat_with`
        in place of those given; None forbids the repetition. With `replicated`, a commit is
        repeated too when the server warns that a standby may lack it. Raises OutboxUnavailableError
        within `within_seconds`, which is `timings.statement_seconds` unless it is given (the
        statement may have run all the same), and InvalidFieldError for a value that PostgreSQL
        can't store.
        """
        if within_seconds is None:
            within_seconds = self.timings.statement_seconds
        deadline = time.monotonic() + within_seconds
        try:
            return await self._until(deadline, statement, given, repeat_with, heed=replicated)
        except TimeoutError as exc:
            self._availability.lose(exc)
            raise OutboxUnavailableError from exc

    async def ask(
        self,
        statement: str,
        given: Mapping[str, object] | None = None,
        *,
        repeat_with: Mapping[str, object] | None = _AS_BEFORE,
        often: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run a named statement for an operator; returns its rows. `repeat_with` is that of `run`.

        It is planned with its values, unless it is asked `often`. A slow one does not mean that the
        database is lost. Raises OutboxUnavailableError after `timings.ask_seconds`, and
        InvalidFieldError.
        """
        deadline = time.monotonic() + self.timings.ask_seconds
        try:
            return await self._until(deadline, statement, given, repeat_with, planned=not often)
        except TimeoutError as exc:
            raise OutboxUnavailableError from exc

    async def _until(
        self,
        deadline: float,
        statement: str,
        given: Mapping[str, object] | None,
        repeat_with: Mapping[str, object] | None,
        *,
        planned: bool = False,
        heed: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run the statement, again if its connection broke. Also raises TimeoutError."""
        while True:
            await self._availability.pass_gate(deadline)
            try:
                return await self._executor.execute(
                    deadline, self._statements[statement], given, planned=planned, heed=heed
                )
            except LostError as exc:
                if exc.__cause__:
                    self._availability.lose(exc.__cause__)
                if repeat_with is None or time.monotonic() >= deadline:
                    raise OutboxUnavailableError from exc.__cause__
                given = {**(given or {}), **repeat_with}
            except REPEAT as exc:
                if time.monotonic() >= deadline:
                    raise OutboxUnavailableError from exc
