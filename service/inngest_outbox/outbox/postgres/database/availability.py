"""The state of the database: it takes writes, or does not until it returns.

While it does not, callers fail at once. One probe on its own connection tries an append that stores
nothing: its locks, rights and commit. A probe that hangs is not cancelled, no second one starts,
and its connection is kept, so that neither probes nor connections accumulate in the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import psycopg
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.postgres.database.connection import (
    OutboxConnection,
    connection_string,
    schema_of,
    set_up,
    shut,
    statements,
)
from inngest_outbox.outbox.postgres.database.faults import reason, sentence
from inngest_outbox.supervisor import end

_GRACE_SECONDS = 0.5
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.05, 1.0
_RELAPSE_SECONDS = 5.0
_FIRST_PATIENCE_SECONDS, _LAST_PATIENCE_SECONDS = 2, 64

log = structlog.get_logger(__name__)


class Availability:
    """Remembers a loss until a probe passes. `renew` is awaited before callers may go on.

    `returns` counts the losses that have ended.
    """

    def __init__(self, url: str, renew: Callable[[], Awaitable[None]]) -> None:
        self._conninfo = connection_string(url)
        self._statement = statements(schema_of(url))["PROBE"]
        self._renew = renew
        self._lost_at: float | None = None
        self._back_at = 0.0
        self._delay = _FIRST_RETRY_SECONDS
        self._back = asyncio.Event()
        self._recovery: asyncio.Task[None] | None = None
        self._probe: OutboxConnection | None = None
        self._patience = _FIRST_PATIENCE_SECONDS
        self._closed = False
        self.failure: str | None = None
        self.returns = 0

    async def close(self) -> None:
        """End the probe. From then on `pass_gate` raises."""
        self._closed = True
        if self._probe:
            shut(self._probe)
        if self._recovery:
            await end(self._recovery)
        if self._probe:
            await self._probe.close()

    async def pass_gate(self, deadline: float) -> None:
        """Return when the database takes writes, at once or soon.

        Raises OutboxUnavailableError otherwise.
        """
        if self._closed:
            raise OutboxUnavailableError
        if self._lost_at is None:
            return
        patience = min(deadline, self._lost_at + _GRACE_SECONDS) - time.monotonic()
        try:
            async with asyncio.timeout(patience):
                await self._back.wait()
        except TimeoutError as exc:
            raise OutboxUnavailableError from exc

    def lose(self, error: BaseException) -> None:
        """Note that the database takes no writes."""
        if self._lost_at is not None or self._closed:
            return
        self.failure = sentence(error)
        log.warning("database_lost", reason=reason(error), failure=self.failure)
        self._lost_at = time.monotonic()
        if self._lost_at - self._back_at > _RELAPSE_SECONDS:
            self._delay = _FIRST_RETRY_SECONDS
        self._back.clear()
        self._recovery = asyncio.create_task(self._recover(), name="outbox-recovery")

    async def _recover(self) -> None:
        lost_at = time.monotonic()
        while not await self._passes():
            await asyncio.sleep(self._delay)
            self._delay = min(self._delay * 2, _LAST_RETRY_SECONDS)
        await self._renew()
        self._back_at = time.monotonic()
        log.warning("database_back", after_seconds=round(self._back_at - lost_at, 3))
        self._lost_at = self.failure = None
        self.returns += 1
        self._back.set()

    async def _passes(self) -> bool:
        try:
            self._probe = self._probe or await self._connect()
            self._probe.warned = False
            await self._probe.execute(self._statement, prepare=False)
        except (psycopg.Error, OSError) as error:
            failure = sentence(error)
            if failure != self.failure:
                log.warning("database_still_lost", reason=reason(error), failure=failure)
            self.failure = failure
            if self._probe and self._probe.closed:
                self._probe = None
            return False
        if self._probe.warned:
            return False
        await self._probe.close()
        self._probe = None
        return True

    async def _connect(self) -> OutboxConnection:
        """A connection; one that is given up counts in a server that hangs, so they are few."""
        self._patience = min(self._patience * 2, _LAST_PATIENCE_SECONDS)
        connection = await OutboxConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=self._patience
        )
        await set_up(connection)
        self._patience = _FIRST_PATIENCE_SECONDS
        return connection
