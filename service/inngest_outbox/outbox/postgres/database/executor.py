"""Running one statement on one of the process's connections, until its deadline.

A statement whose caller has given up keeps its connection until the server has ended it. So the
server never runs more statements of this process than it has connections. Those that are planned
anew, which may search long, have half of the connections at most: the others wait for none of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Self

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from inngest_outbox.errors import InvalidFieldError, OutboxUnavailableError
from inngest_outbox.outbox.postgres.database.connection import (
    OutboxConnection,
    connection_string,
    set_up,
    shut,
)
from inngest_outbox.outbox.postgres.database.faults import (
    BAD_VALUE,
    REPEAT,
    is_of_the_database,
    reason,
)
from inngest_outbox.shielded import shielded

MAX_CONNECTIONS = 8

log = structlog.get_logger(__name__)


class LostError(Exception):
    """The connection broke under a statement, whose outcome is unknown."""


class PostgresExecutor:
    """The connections; an async context manager."""

    def __init__(self, url: str, connection_seconds: float) -> None:
        self._connection_seconds = connection_seconds
        self._planned = asyncio.Semaphore(MAX_CONNECTIONS // 2)
        self._running: set[asyncio.Task[list[tuple[Any, ...]]]] = set()
        self._in_use: dict[OutboxConnection, float] = {}  # with the deadline of its statement
        self._pool = AsyncConnectionPool(
            connection_string(url),
            connection_class=OutboxConnection,
            kwargs={"autocommit": True},
            configure=set_up,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            reconnect_timeout=0.5,
            max_lifetime=1800,
            open=False,
        )

    async def __aenter__(self) -> Self:
        # The pool would log each try; Availability logs what matters.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._in_use:
            shut(connection)
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._pool.close(timeout=2.0)

    async def execute(
        self,
        deadline: float,
        statement: bytes,
        given: Mapping[str, object] | None,
        *,
        planned: bool,
        heed: bool,
    ) -> list[tuple[Any, ...]]:
        """Run a statement; its rows. It continues without a caller that is cancelled or late.

        With `planned`, the statement is planned anew, with its values. With `heed`, a commit with a
        warning of the server counts as lost. Raises TimeoutError at `deadline`, LostError,
        OutboxUnavailableError, InvalidFieldError, UniqueViolation, and errors that a repetition may
        avoid.
        """
        async with asyncio.timeout(deadline - time.monotonic()):
            if planned:
                await self._planned.acquire()
            work = asyncio.create_task(
                self._execute(deadline, statement, given, planned=planned, heed=heed),
                name="outbox-statement",
            )
            self._running.add(work)
            work.add_done_callback(self._running.discard)
            if planned:
                work.add_done_callback(lambda _: self._planned.release())
            return await shielded(work)

    async def renew(self) -> None:
        """Replace connections after a loss: old ones may be dead.

        The database takes writes again, so a statement that is late waits on a dead connection.
        """
        now = time.monotonic()
        for connection, deadline in self._in_use.items():
            if deadline < now:
                shut(connection)
        await self._pool.drain()

    async def _execute(
        self,
        deadline: float,
        statement: bytes,
        given: Mapping[str, object] | None,
        *,
        planned: bool,
        heed: bool,
    ) -> list[tuple[Any, ...]]:
        timeout = max(0.01, min(self._connection_seconds, deadline - time.monotonic()))
        connection = None
        try:
            async with self._pool.connection(timeout=timeout) as connection:
                self._in_use[connection] = deadline
                connection.warned = False
                async with _cursor(connection, planned=planned) as cursor:
                    await cursor.execute(statement, given)
                    rows = await cursor.fetchall() if cursor.description else []
                if heed and connection.warned:
                    raise LostError
                return rows
        except (*REPEAT, psycopg.errors.UniqueViolation):
            raise
        except BAD_VALUE as exc:
            raise InvalidFieldError("a text holds a character that can't be stored") from exc
        except psycopg.Error as exc:
            if connection is None or connection.closed or is_of_the_database(exc):
                raise LostError from exc
            log.warning("statement_failed", reason=reason(exc))
            raise OutboxUnavailableError from exc
        finally:
            if connection is not None:
                self._in_use.pop(connection, None)


def _cursor(connection: OutboxConnection, *, planned: bool) -> psycopg.AsyncCursor[Any]:
    """A cursor that sends values apart from the statement, or with `planned` as a part of it."""
    if planned:
        return psycopg.AsyncClientCursor(connection)
    return connection.cursor(binary=True)
