"""`serve`: listen, run until told to stop, and stop gracefully.

SIGTERM and SIGINT stop accepting, let requests finish and sends settle, then close; a second one
ends the process at once. What was not settled goes out after the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from aiohttp import web

from service.bootstrap.service import serving
from service.inngest_client import make_client
from service.observe.logs import LogStream
from service.settings import Settings
from service.stand_in.event_api import EventApi

MAX_HEADER_BYTES = 32 * 1024
REQUEST_SECONDS = 15.0
_SECOND_SIGNAL_EXIT = 130


async def serve(settings: Settings, logs: LogStream) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises ConfigurationError, OutboxError, and OSError when the address can't be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, logs)
    async with _stand_in_if_needed(settings), serving(settings) as service:
        service.supervisor.watch("log-flush", logs.keep_flushing)
        async with _listening(service.app, settings.host, settings.port) as url:
            _quiet_garbage_collector()
            _say(f"Listening on {url}")
            await stop.wait()
            _say("Stopping: finishing requests and sends under way.")
    logs.flush()


def _on_signal(stop: asyncio.Event, logs: LogStream) -> None:
    if stop.is_set():
        logs.flush()
        os._exit(_SECOND_SIGNAL_EXIT)
    stop.set()


@contextlib.asynccontextmanager
async def _listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    # Chunked session cookies need more header room than aiohttp's default of 8 KiB.
    runner = web.AppRunner(
        app,
        access_log=None,
        max_field_size=MAX_HEADER_BYTES,
        shutdown_timeout=REQUEST_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _stand_in_if_needed(settings: Settings) -> AsyncIterator[None]:
    """In development, stand in for Inngest on this machine when nothing answers there."""
    origin = urlsplit(make_client(settings).event_api_origin)
    host, port = origin.hostname or "", origin.port or 80
    local = host in ("localhost", "127.0.0.1", "::1")
    if settings.production or not local or await _answers(host, port):
        yield
        return
    async with EventApi(host, port) as stand_in:
        _say(
            f"No Inngest answers at {stand_in.url}: a stand-in takes its place (development only). "
            f"See what arrives at {stand_in.url}/stand-in/events. "
            "The real one: npx inngest-cli@latest dev --no-discovery"
        )
        yield


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _quiet_garbage_collector() -> None:
    """What lives as long as the process is not looked at again by each collection."""
    gc.collect()
    gc.freeze()


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()
