"""The process that serves the Inngest function over an outgoing connection, without an open port.

It reconnects after a lost connection. When S3 is away, the runs fail and are retried. A stop gives
the running functions their time, then leaves them to Inngest's retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import inngest
import structlog
from inngest.connect import ConnectionState, connect

from inngest_outbox.config.settings import Settings
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.documents.index_document import Facts, index_function
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.inngest.run_log import RunLog

_LOST = "the connection was lost"
_LOOK_SECONDS = 0.25

_log = structlog.get_logger(__name__)


class Connection(Protocol):
    """The part of the SDK's connection that is used here."""

    def get_state(self) -> ConnectionState:
        """Its state now."""
        ...

    async def wait_for_state(self, state: ConnectionState) -> None:
        """Return once it has the state."""
        ...

    def get_connection_id(self) -> str:
        """The id that Inngest assigned; raises without a connection."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerTimings:
    """Wait `retry_seconds` between tries to connect; report a try after `slow_seconds`."""

    retry_seconds: float = 5.0
    slow_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Work:
    """The functions of a worker, its client, and where it reports its state."""

    client: inngest.Inngest
    functions: list[inngest.Function[Facts]]
    status: WorkerStatus
    timings: WorkerTimings = WorkerTimings()


async def run_worker(
    settings: Settings,
    client: inngest.Inngest,
    status: WorkerStatus,
    event_name: str,
    stop: asyncio.Event,
    timings: WorkerTimings = WorkerTimings(),
) -> None:
    """Serve the function over an outgoing connection to Inngest until `stop`.

    The function runs on the events `event_name`. Reconnects after a lost connection. On a stop,
    running functions have `drain_seconds` to finish; Inngest retries the others. Raises
    ConfigurationError without a bucket.
    """
    if settings.s3_bucket is None or settings.s3_region is None:
        missing = settings.missing_storage
        raise ConfigurationError([f"{name}: required by the worker" for name in missing])
    client.add_middleware(RunLog())
    async with Bucket(settings.s3_bucket, settings.s3_region) as bucket:
        work = Work(client, [index_function(client, bucket, event_name)], status, timings)
        await serve(work, stop, settings.drain_seconds)


async def serve(work: Work, stop: asyncio.Event, drain_seconds: float) -> None:
    """Serve until `stop` is set; reconnect `retry_seconds` after a connection ended."""
    while not stop.is_set():
        _log.info("worker_connecting", inngest=work.client.api_origin)
        reason = "Inngest closed the connection"
        try:
            await _serve_once(work, stop, drain_seconds)
        except Exception as error:  # noqa: BLE001  (the SDK raises plain Exception)
            reason = str(error)
        if not stop.is_set():
            work.status.disconnect(reason)
            retry = work.timings.retry_seconds
            _log.error("worker_disconnected", reason=reason, retry_seconds=retry)
            await _wait(stop, retry)
    work.status.disconnect("stopped")
    _log.info("worker_stopped")


async def _serve_once(work: Work, stop: asyncio.Event, drain_seconds: float) -> None:
    # Left to itself the SDK replaces the process's signal handlers.
    connection = connect([(work.client, work.functions)], shutdown_signals=[])
    serving = asyncio.create_task(connection.start(), name="serve-inngest")
    stopping = asyncio.create_task(stop.wait(), name="await-stop")
    async with _followed(connection, work):
        try:
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                _log.info("worker_stopping", drain_seconds=drain_seconds)
        finally:
            stopping.cancel()
            await connection.close()
            await asyncio.wait((serving,), timeout=drain_seconds)
            if not serving.cancel():
                serving.result()


@contextlib.asynccontextmanager
async def _followed(connection: Connection, work: Work) -> AsyncIterator[None]:
    following = asyncio.create_task(_follow(connection, work), name="follow-connection")
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait((following,))


async def _follow(connection: Connection, work: Work) -> None:
    """Report each change between connected and not connected, and a slow try to connect."""
    while True:
        await _until_active(connection, work)
        work.status.connect()
        names = [function.id for function in work.functions]
        _log.info("worker_connected", id=connection.get_connection_id(), functions=names)
        # Polled, because the SDK's watcher can miss a short state.
        while connection.get_state() is ConnectionState.ACTIVE:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        if connection.get_state() in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        work.status.disconnect(_LOST)
        _log.warning("worker_disconnected", reason=_LOST)


async def _until_active(connection: Connection, work: Work) -> None:
    active = asyncio.ensure_future(connection.wait_for_state(ConnectionState.ACTIVE))
    try:
        await asyncio.wait((active,), timeout=work.timings.slow_seconds)
        if not active.done():
            work.status.disconnect(f"no connection to {work.client.api_origin} yet")
            _log.warning("worker_not_connected", inngest=work.client.api_origin)
        await active
    finally:
        active.cancel()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


class WorkerStatus:
    """The state of one worker's connection. `reason` says why there is none."""

    def __init__(self) -> None:
        self.connected = False
        self.reason = "not connected yet"
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the state last changed."""
        return time.monotonic() - self._since

    def connect(self) -> None:
        """Note that the worker is connected and its functions are registered."""
        self._turn(connected=True, reason="")

    def disconnect(self, reason: str) -> None:
        """Note that there is no connection. Another reason does not restart the time."""
        self._turn(connected=False, reason=reason)

    def _turn(self, *, connected: bool, reason: str) -> None:
        if connected != self.connected:
            self._since = time.monotonic()
        self.connected, self.reason = connected, reason
