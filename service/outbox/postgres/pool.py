"""Connections to PostgreSQL: one statement at a time, within a deadline, or OutboxUnavailableError.

Every statement of the outbox is a transaction of its own, and most are safe to repeat: when the
connection of one breaks it is run again on another while its deadline lasts. No session state is
kept on a connection, so a pooler in transaction mode may stand between. While the database is away
callers fail at once and one task looks for its return.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, LiteralString, Self

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from service.errors import InvalidFieldError, OutboxUnavailableError, ServiceError
from service.supervisor import end

STATEMENT_SECONDS = 2.0
MAX_CONNECTIONS = 8
_GRACE_SECONDS = 0.5
_CONNECTION_WAIT_SECONDS = 1.0
_PROBE_SECONDS = 1.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.05, 1.0

# A peer that vanished is noticed by TCP, also where no statement waits for it.
_CONNECTION: dict[str, str | int | None] = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
    "application_name": "outbox",
}

# Asked after a loss: a standby that answers is not a database that takes events.
PROBE = "SELECT current_setting('transaction_read_only') = 'off'"

_LOST = (
    PoolTimeout,
    psycopg.InterfaceError,
    psycopg.errors.AdminShutdown,
    psycopg.errors.CrashShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.ReadOnlySqlTransaction,
)
_REPEAT = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


log = structlog.get_logger(__name__)


class _LostError(Exception):
    """The connection broke under a statement; what became of the statement is not known."""


def connection_string(url: str) -> str:
    """The address in libpq's form with our timeouts, unless `url` sets its own."""
    return make_conninfo("", **{**_CONNECTION, **conninfo_to_dict(url)})


class PostgresPool:
    """The process's connections to one database; an async context manager.

    `statements` counts the round trips that were made, `available` is false while the database
    is away.
    """

    def __init__(self, url: str, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self.statements = 0
        self._closed = False
        self._lost_at: float | None = None
        self._back = asyncio.Event()
        self._back.set()
        self._recovery: asyncio.Task[None] | None = None
        self._pool = AsyncConnectionPool(
            connection_string(url),
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=max_connections,
            reconnect_timeout=0.5,
            max_lifetime=1800,
            open=False,
        )

    async def __aenter__(self) -> Self:
        # Each try of the pool would be a line; what matters is logged here.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._recovery:
            await end(self._recovery)
        await self._pool.close(timeout=2.0)

    @property
    def available(self) -> bool:
        """Whether the database answered last."""
        return self._lost_at is None

    async def run(
        self,
        statement: LiteralString,
        given: Mapping[str, object] | None = None,
        *,
        within_seconds: float = STATEMENT_SECONDS,
        repeatable: bool = True,
    ) -> list[tuple[Any, ...]]:
        """Run one statement; returns its rows.

        A connection that breaks is forgiven while the statement is `repeatable`. Raises
        OutboxUnavailableError within `within_seconds` (it may have run all the same), and
        InvalidFieldError for a value that PostgreSQL can't store.
        """
        deadline = time.monotonic() + within_seconds
        while True:
            await self._pass_gate(deadline)
            try:
                return await self._attempt(statement, given, deadline)
            except _LostError as exc:
                self._lose(exc)
                if not repeatable or time.monotonic() >= deadline:
                    raise OutboxUnavailableError from exc.__cause__
            except _REPEAT as exc:
                if time.monotonic() >= deadline:
                    raise OutboxUnavailableError from exc

    async def _pass_gate(self, deadline: float) -> None:
        if self._closed:
            raise OutboxUnavailableError
        if self._lost_at is None:
            return
        patience = min(deadline, self._lost_at + _GRACE_SECONDS) - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, patience)):
                await self._back.wait()
        except TimeoutError as exc:
            raise OutboxUnavailableError from exc

    async def _attempt(
        self, statement: LiteralString, given: Mapping[str, object] | None, deadline: float
    ) -> list[tuple[Any, ...]]:
        async with self._connection(deadline) as connection:
            self.statements += 1
            with _cut_off_at(deadline, connection):
                work = asyncio.ensure_future(_execute(connection, statement, given))
                try:
                    return await asyncio.shield(work)
                except asyncio.CancelledError:
                    if not work.done():
                        _shut(connection)
                        await asyncio.gather(work, return_exceptions=True)
                        await connection.close()
                    raise

    @contextlib.asynccontextmanager
    async def _connection(self, deadline: float) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        timeout = max(0.01, min(_CONNECTION_WAIT_SECONDS, deadline - time.monotonic()))
        connection = None
        with _errors_mapped(lambda: connection is None or connection.closed):
            async with self._pool.connection(timeout=timeout) as connection:
                yield connection

    def _lose(self, error: _LostError) -> None:
        if self._lost_at is None and not self._closed:
            log.warning("database_lost", reason=str(error.__cause__).partition("\n")[0])
            self._lost_at = time.monotonic()
            self._back.clear()
            self._recovery = asyncio.create_task(self._recover(), name="outbox-recovery")

    async def _recover(self) -> None:
        lost_at = time.monotonic()
        delay = _FIRST_RETRY_SECONDS
        while not await self._answers():
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_SECONDS)
        log.warning("database_back", after_seconds=round(time.monotonic() - lost_at, 3))
        self._lost_at = None
        self._back.set()

    async def _answers(self) -> bool:
        """Whether a new connection takes writes; the old ones may all be as dead as the first."""
        try:
            await self._pool.drain()
            rows = await self._attempt(PROBE, None, time.monotonic() + _PROBE_SECONDS)
        except (_LostError, ServiceError):
            return False
        return bool(rows[0][0])


@contextlib.contextmanager
def _errors_mapped(broken: Callable[[], bool]) -> Iterator[None]:
    """The driver's errors as ours; `broken` tells whether the connection is of no more use."""
    try:
        yield
    except _REPEAT:
        raise
    except _LOST as exc:
        raise _LostError from exc
    except (psycopg.DataError, UnicodeEncodeError) as exc:
        raise InvalidFieldError("a text holds a character that can't be stored") from exc
    except psycopg.Error as exc:
        if broken():
            raise _LostError from exc
        raise OutboxUnavailableError from exc


async def _execute(
    connection: psycopg.AsyncConnection[Any],
    statement: LiteralString,
    given: Mapping[str, object] | None,
) -> list[tuple[Any, ...]]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(statement, given, prepare=False)
        return await cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def _cut_off_at(deadline: float, connection: psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Shut the socket at the deadline.

    Cancelling psycopg asks the server to stop and waits for its answer, which a black hole never
    gives; a shut socket ends the wait at once.
    """
    loop = asyncio.get_running_loop()
    cut = loop.call_later(max(0.0, deadline - time.monotonic()), _shut, connection)
    try:
        yield
    finally:
        cut.cancel()


def _shut(connection: psycopg.AsyncConnection[Any]) -> None:
    with contextlib.suppress(OSError, psycopg.Error):
        handle = socket.socket(fileno=os.dup(connection.fileno()))
        with contextlib.closing(handle):
            handle.shutdown(socket.SHUT_RDWR)
