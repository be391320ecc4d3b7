"""Wakes waiting claims: at once in this process, by NOTIFY in others.

NOTIFY stays off the commit path, because it takes a lock that all commits of a database share. One
NOTIFY covers the wake-ups of a few milliseconds, except for rows that this process's own claims are
about to take. A notification is only a hint: a waiting claim also polls, slowly while the listening
connection receives its own nonce, quickly while it does not (a pooler in transaction mode, a
half-open connection).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

import psycopg

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.postgres.connection import connection_string
from service.outbox.postgres.pool import PostgresPool
from service.supervisor import Supervisor

# One NOTIFY in a transaction of its own; payloads are `<sender> <what>`.
NOTIFY = "SELECT pg_notify('outbox', %(payload)s)"
LISTEN = "LISTEN outbox"

# Tells a move that a service runs. Not taken behind a pooler, which would keep it for other
# clients.
SERVED_LOCK_CLASS = 0x6F757462
SERVED_LOCK_NUMBER = "('outbox'::regclass::oid::bigint %% 2000000000)"
HOLD_SERVED_LOCK = f"""
SELECT pg_advisory_lock_shared(%(class)s, {SERVED_LOCK_NUMBER}::integer)
WHERE pg_backend_pid() = %(backend)s
"""

_ROWS, _SETTINGS = "rows", "settings"
_COALESCE_SECONDS = 0.01
_CLAIMS_HERE_SECONDS = 0.05
_SELF_TEST_EVERY_SECONDS = 5.0
_SELF_TEST_WITHIN_SECONDS = 2.0
_POLL_SECONDS, _POLL_DEAF_SECONDS = 2.0, 0.2
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 5.0


class PostgresWakeup:
    """Wakes claims when rows may be due; an async context manager.

    `notify_ok` is true while the listening connection receives this process's notifications.
    `generation` grows with every wake-up.
    """

    def __init__(
        self,
        url: str,
        pool: PostgresPool,
        recorder: Recorder,
        supervisor: Supervisor,
    ) -> None:
        self._recorder = recorder
        self._supervisor = supervisor
        self._set_notify_ok(ok=False)
        self.generation = 0
        self._pool = pool
        self._settings_changed: Callable[[], None] = lambda: None
        self._conninfo = connection_string(url)
        self._sender = uuid.uuid4().hex
        self._woken = asyncio.Event()
        self._waiting = 0
        self._claimed_at = 0.0
        self._unsaid: set[str] = set()
        self._to_say = asyncio.Event()
        self._nonce = ""
        self._heard = False

    async def __aenter__(self) -> Self:
        self._supervisor.watch("outbox-listen", self._listen)
        self._supervisor.watch("outbox-notify", self._say)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-listen")
        await self._supervisor.stop("outbox-notify")

    @property
    def poll_seconds(self) -> float:
        """The longest wait before the database is asked again."""
        return _POLL_SECONDS if self.notify_ok else _POLL_DEAF_SECONDS

    def claims_here(self) -> None:
        """Note that this process claims, so other processes need no notification for a moment."""
        self._claimed_at = time.monotonic()

    def rows_are_due(self) -> None:
        """Wake a waiting claim of this process; without one, notify other processes soon."""
        taken_here = self._waiting or time.monotonic() - self._claimed_at < _CLAIMS_HERE_SECONDS
        self._wake()
        if not taken_here:
            self._tell(_ROWS)

    def settings_were_saved(self) -> None:
        """Notify the other processes soon."""
        self._tell(_SETTINGS)

    def on_settings(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever any other process saved settings."""
        self._settings_changed = changed

    async def wait(self, generation: int, timeout_seconds: float) -> None:
        """Return after a wake-up since `generation` was read, or at the timeout."""
        woken = self._woken
        if generation == self.generation:
            self._waiting += 1
            try:
                async with asyncio.timeout(timeout_seconds):
                    await woken.wait()
            except TimeoutError:
                pass
            finally:
                self._waiting -= 1

    def _set_notify_ok(self, *, ok: bool) -> None:
        self.notify_ok = ok
        self._recorder.gauge("notify_ok", float(ok))

    def _wake(self) -> None:
        self.generation += 1
        self._woken.set()
        self._woken = asyncio.Event()

    def _tell(self, what: str) -> None:
        self._unsaid.add(what)
        self._to_say.set()

    async def _say(self) -> None:
        while True:
            await self._to_say.wait()
            self._to_say.clear()
            unsaid, self._unsaid = self._unsaid, set()
            for what in unsaid:
                await self._notify(what)
            await asyncio.sleep(_COALESCE_SECONDS)

    async def _notify(self, what: str) -> None:
        with contextlib.suppress(OutboxUnavailableError):
            await self._pool.run(NOTIFY, {"payload": f"{self._sender} {what}"})

    async def _listen(self) -> None:
        delay = _FIRST_RETRY_SECONDS
        while True:
            with contextlib.suppress(psycopg.Error, OSError):
                connection = await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, prepare_threshold=None
                )
                async with connection:
                    given = {"class": SERVED_LOCK_CLASS, "backend": connection.info.backend_pid}
                    await connection.execute(HOLD_SERVED_LOCK, given)
                    await connection.execute(LISTEN)
                    self._wake()
                    await self._hear(connection)
            delay = _FIRST_RETRY_SECONDS if self.notify_ok else delay
            self._set_notify_ok(ok=False)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_SECONDS)

    async def _hear(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Listen until the connection breaks or stops receiving this process's own nonce."""
        while await self._hears_itself(connection):
            self._set_notify_ok(ok=True)
            await self._take(connection, _SELF_TEST_EVERY_SECONDS)

    async def _hears_itself(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Whether a new nonce of this process arrives in time."""
        self._nonce = uuid.uuid4().hex
        self._heard = False
        await self._notify(self._nonce)
        until = time.monotonic() + _SELF_TEST_WITHIN_SECONDS
        while not self._heard and (left := until - time.monotonic()) > 0:
            await self._take(connection, left, stop_after=1)
        return self._heard

    async def _take(
        self,
        connection: psycopg.AsyncConnection[Any],
        seconds: float,
        stop_after: int | None = None,
    ) -> None:
        async for notice in connection.notifies(timeout=seconds, stop_after=stop_after):
            sender, _, what = notice.payload.partition(" ")
            if what == self._nonce:
                self._heard = True
            elif sender != self._sender and what == _ROWS:
                self._wake()
            elif sender != self._sender and what == _SETTINGS:
                self._settings_changed()
