"""A PostgreSQL server's notifications in virtual time: connections that listen, and a pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Self

import psycopg

from service.outbox.postgres.notify import NOTIFY, PostgresWakeup
from tests.support.virtual_time import now
from tests.support.watched_tasks import WatchedTasks

_MOST = 200


class Listening:
    """A session that hears what is said; an exception that is put in breaks it."""

    def __init__(self) -> None:
        self.info = SimpleNamespace(backend_pid=77)
        self.given: list[tuple[str, Any]] = []
        self.said: asyncio.Queue[str | Exception] = asyncio.Queue()
        self.is_open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_open = False

    async def execute(self, statement: str, given: Any = None) -> None:
        self.given.append((statement, given))

    async def notifies(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        stop_after: int | None = None,
    ) -> AsyncIterator[SimpleNamespace]:
        ends_at = None if timeout is None else now() + timeout
        count = 0
        while stop_after is None or count < max(1, stop_after):
            try:
                async with asyncio.timeout_at(ends_at):
                    payload = await self.said.get()
            except TimeoutError:
                return
            if isinstance(payload, Exception):
                raise payload
            count += 1
            yield SimpleNamespace(payload=payload)


class Server(WatchedTasks):
    """What a wake-up uses: its connections, pool, recorder and supervisor are all this object.

    `is_deaf` says that no notification arrives, `refuses` what a connection fails with, `error`
    what the pool fails with.
    """

    def __init__(self) -> None:
        super().__init__()
        given: Any = self
        self.is_deaf = False
        self.refuses: Exception | None = None
        self.error: Exception | None = None
        self.sessions: list[Listening] = []
        self.connected: list[tuple[float, str, dict[str, Any]]] = []
        self.said: list[tuple[float, str]] = []
        self.gauges: list[tuple[float, float]] = []
        self.wakeup = PostgresWakeup("postgresql://there/outbox", given, given, given)

    @property
    def psycopg(self) -> Any:
        """What stands for the package."""
        connecting = SimpleNamespace(connect=self._connect)
        return SimpleNamespace(AsyncConnection=connecting, Error=psycopg.Error)

    def times(self) -> list[float]:
        """When it was asked for a session."""
        return [at for at, *_ in self.connected]

    def say(self, payload: str | Exception) -> None:
        """What every open session hears."""
        for session in self.sessions:
            if session.is_open:
                session.said.put_nowait(payload)

    def told(self) -> list[tuple[float, str]]:
        """What was said about rows and settings, and when."""
        words = [(at, payload.partition(" ")[2]) for at, payload in self.said]
        return [(at, what) for at, what in words if what in {"rows", "settings"}]

    def nonces(self) -> list[tuple[float, str]]:
        """What a session of its own was to hear, and when."""
        words = [(at, payload.partition(" ")[2]) for at, payload in self.said]
        return [(at, what) for at, what in words if what not in {"rows", "settings"}]

    async def _connect(self, conninfo: str, **how: Any) -> Listening:
        self.connected.append((_moment(), conninfo, how))
        assert len(self.connected) < _MOST, "it connects without a pause"
        if self.refuses:
            raise self.refuses
        self.sessions.append(Listening())
        return self.sessions[-1]

    async def run(self, statement: str, given: dict[str, str]) -> None:
        assert statement == NOTIFY
        self.said.append((_moment(), given["payload"]))
        assert len(self.said) < _MOST, "it notifies without a pause"
        if self.error:
            raise self.error
        if not self.is_deaf:
            self.say(given["payload"])

    def gauge(self, name: str, value: float) -> None:
        assert name == "notify_ok"
        at = _moment() if self.connected else 0.0
        if not self.gauges or self.gauges[-1][1] != value:
            self.gauges.append((at, value))


def _moment() -> float:
    return round(now(), 6)
