"""The process that serves the Inngest function, over an outgoing connection: no port to open.

It outlives its neighbours: a lost connection is made again, and an S3 that is away is the business
of each run. Stopping gives the runs at work their time, then leaves them to Inngest's retry.
"""

from __future__ import annotations

import asyncio
import signal

import inngest
import structlog
from inngest.connect import connect

from service.documents.bucket import Bucket
from service.documents.index_document import Facts, index_function
from service.errors import ConfigurationError
from service.settings import Settings

_RECONNECT_SECONDS = 5.0

_log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, client: inngest.Inngest) -> None:
    """Serve the function over an outgoing connection to Inngest until SIGINT or SIGTERM.

    A lost connection is made again. On stop, runs at work have `drain_seconds` to finish; Inngest
    gives what is left to another worker. Raises ConfigurationError without a bucket.
    """
    if settings.s3_bucket is None or settings.s3_region is None:
        missing = settings.missing_storage
        raise ConfigurationError([f"{name}: required by the worker" for name in missing])
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Bucket(settings.s3_bucket, settings.s3_region) as bucket:
        await serve(client, [index_function(client, bucket)], stop, settings.drain_seconds)


async def serve(
    client: inngest.Inngest,
    functions: list[inngest.Function[Facts]],
    stop: asyncio.Event,
    drain_seconds: float,
) -> None:
    """Serve `functions` until `stop` is set; a connection that ended is made again after 5 s."""
    while not stop.is_set():
        try:
            await _serve_once(client, functions, stop, drain_seconds)
        except Exception as error:  # noqa: BLE001  (the SDK raises plain Exception)
            _log.error("worker_disconnected", reason=str(error), retry_seconds=_RECONNECT_SECONDS)
        await _wait(stop, _RECONNECT_SECONDS)


async def _serve_once(
    client: inngest.Inngest,
    functions: list[inngest.Function[Facts]],
    stop: asyncio.Event,
    drain_seconds: float,
) -> None:
    # Left to itself the SDK replaces the process's signal handlers.
    connection = connect([(client, functions)], shutdown_signals=[])
    serving = asyncio.create_task(connection.start(), name="serve-inngest")
    stopping = asyncio.create_task(stop.wait(), name="await-stop")
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        await connection.close()
        await asyncio.wait((serving,), timeout=drain_seconds)
        if not serving.cancel():
            serving.result()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
