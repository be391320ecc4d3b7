"""`serve`: listen, run until told to stop, and stop gracefully.

SIGTERM and SIGINT stop accepting, let requests finish and sends settle, then close; a second one
ends the process at once. What was not settled goes out after the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from aiohttp import web

from service.bootstrap.service import run_relay_alone, run_service
from service.cli.development_inngest import open_inngest
from service.cli.process_pool import Workers, lifeline
from service.config.settings import Settings
from service.observe.log_stream import LogStream
from service.observe.recorder import Recorder
from service.observe.service_manager import ServiceManager
from service.web.server import HttpServer

BACKLOG = 1024
MAX_HANDLES = 65_536
_SECOND_SIGNAL_EXIT = 130


async def serve(
    settings: Settings, logs: LogStream, *, relay: bool = True, fake_inngest: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; `relay` says whether this process delivers too.

    With `fake_inngest` events go to a fake Inngest where nothing else is meant. Raises
    ConfigurationError, OutboxError, and OSError when the address can't be listened on.
    """
    stop = _stop_on_signals(logs)
    _allow_many_connections()
    async with (
        open_inngest(settings, fake=fake_inngest, say=_say) as known,
        run_service(known, with_relay=relay) as service,
        _listening(service.app, service.recorder, settings.host, settings.port) as url,
    ):
        _quiet_garbage_collector()
        _say(f"Listening on {url}")
        async with ServiceManager(os.environ).told(f"Listening on {url}"):
            await stop.wait()
        _say("Stopping: finishing requests and sends under way.")
    logs.close()


async def serve_as_worker(
    settings: Settings, logs: LogStream, *, relay: bool, listen_fd: int, lifeline_fd: int
) -> None:
    """Serve on the parent's socket until SIGTERM, or until the parent is gone."""
    stop = _stop_on_signals(logs)
    _allow_many_connections()
    with lifeline(lifeline_fd, stop.set) as hello:
        async with (
            run_service(settings, with_relay=relay) as service,
            _running(service.app, service.recorder) as runner,
        ):
            shared = socket.socket(fileno=listen_fd)
            await web.SockSite(runner, shared, backlog=BACKLOG).start()
            _quiet_garbage_collector()
            hello()
            await stop.wait()
    logs.close()


async def serve_with_workers(
    settings: Settings, logs: LogStream, command: Sequence[str], *, fake_inngest: bool
) -> int:
    """Serve by WEB_CONCURRENCY processes of `command`; returns the exit status."""
    with _shared_socket(settings.host, settings.port) as listening:
        async with open_inngest(settings, fake=fake_inngest, say=_say) as known:
            fake = known.fake_inngest_url
            own = [*command, "--fake-inngest-url", fake] if fake else command
            workers = Workers(own, listening, count=settings.web_concurrency, say=_say)
            stop = _stop_on_signals(logs, then=workers.kill)
            running = asyncio.create_task(workers.run(), name="workers")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            accepting = asyncio.create_task(workers.accept(), name="accept")
            ended = {running, stopping}
            await asyncio.wait({*ended, accepting}, return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                url = _url(settings.host, listening.getsockname()[1])
                listens = f"Listening on {url} with {settings.web_concurrency} processes"
                _say(listens)
                async with ServiceManager(os.environ).told(listens):
                    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            accepting.cancel()
            stopping.cancel()
            _say("Stopping: the processes finish requests and sends under way.")
            workers.stop()
            return await running


async def relay_only(settings: Settings, logs: LogStream) -> None:
    """Deliver without accepting, until SIGTERM or SIGINT; raises what `serve` raises."""
    stop = _stop_on_signals(logs)
    async with run_relay_alone(settings):
        _quiet_garbage_collector()
        _say("Delivering")
        async with ServiceManager(os.environ).told("Delivering"):
            await stop.wait()
        _say("Stopping: finishing sends under way.")
    logs.close()


def _stop_on_signals(logs: LogStream, then: Callable[[], None] | None = None) -> asyncio.Event:
    """An event that the first signal sets; a second one ends the process, after `then`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, logs, then)
    return stop


def _on_signal(stop: asyncio.Event, logs: LogStream, then: Callable[[], None] | None) -> None:
    if stop.is_set():
        if then:
            then()
        logs.close()
        os._exit(_SECOND_SIGNAL_EXIT)
    stop.set()


@contextlib.asynccontextmanager
async def _listening(
    app: web.Application, recorder: Recorder, host: str, port: int
) -> AsyncIterator[str]:
    async with _running(app, recorder) as runner:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        yield _url(host, runner.addresses[0][1])


@contextlib.asynccontextmanager
async def _running(app: web.Application, recorder: Recorder) -> AsyncIterator[web.AppRunner]:
    runner = HttpServer(app, recorder)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def _shared_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket for the workers to inherit, on IPv4 where `host` has both."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        yield bound


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _allow_many_connections() -> None:
    """Slow clients hold a file handle each, and the usual soft limit is 1,024 of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_HANDLES if hard == resource.RLIM_INFINITY else min(hard, MAX_HANDLES)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _quiet_garbage_collector() -> None:
    """What lives as long as the process is not looked at again by each collection."""
    gc.collect()
    gc.freeze()


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()
