"""`serve` with WEB_CONCURRENCY above 1: the parent, and what its children run.

The store process owns the outbox and delivers; the front processes take requests and hand events to
it over a Unix socket that only this user can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.bootstrap.inngest import make_client
from service.bootstrap.service import run_front_process, run_store_process
from service.cli.announce import Announcer, announcer_for
from service.cli.banner import banner
from service.cli.child_process import Child, lifeline
from service.cli.development_inngest import open_inngest
from service.cli.listening import (
    allow_many_connections,
    listen_on,
    listen_unix,
    shared_socket,
    url_of,
)
from service.cli.process_pool import ProcessPool
from service.cli.signals import reload_on_hangup, stop_on_signals
from service.cli.standing import standing_of
from service.cli.startup import quiet_garbage_collector
from service.config.settings import Settings
from service.observe.log_stream import LogStream
from service.observe.service_manager import ServiceManager
from service.observe.shared_metrics import SHARED_FOLDER, forget_gauges
from service.operations.socket_folder import socket_folder

_STORE_SOCKET = "store"
_METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Handles:
    """The descriptors that a child inherits: its listening socket, and its line to the parent."""

    listening: int
    lifeline: int


async def serve_with_processes(
    settings: Settings, logs: LogStream, *, relay: bool, fake_inngest: bool
) -> int:
    """Serve by a store process and WEB_CONCURRENCY front processes; returns the exit status."""
    announcer = announcer_for(settings)
    with shared_socket(settings.host, settings.port) as listening, socket_folder() as folder:
        async with open_inngest(settings, fake=fake_inngest, say=announcer.say) as known:
            with _pool(known, listening, folder, announcer, relay=relay) as pool:
                stop = stop_on_signals(logs, then=pool.kill)
                reload_on_hangup(pool.upgrade)
                url = url_of(settings.host, listening.getsockname()[1])
                return await _run(pool, stop, known, url, announcer)


async def serve_as_front(
    settings: Settings, logs: LogStream, handles: Handles, *, store: str
) -> None:
    """Take requests on the parent's socket until SIGTERM, or until the parent is gone."""
    stop = stop_on_signals(logs)
    allow_many_connections()
    async with (
        lifeline(handles.lifeline, stop.set) as line,
        run_front_process(settings, store) as (app, recorder),
        listen_on(app, recorder, handles.listening),
    ):
        quiet_garbage_collector()
        line.ready()
        await stop.wait()
    logs.close()


async def serve_as_store(
    settings: Settings, logs: LogStream, handles: Handles, *, relay: bool, take_over: bool
) -> None:
    """Own the outbox and deliver until SIGTERM, or until the parent is gone.

    With `take_over` the outbox is opened when the parent says that the process before has let go.
    """
    stop = stop_on_signals(logs)
    allow_many_connections()
    async with lifeline(handles.lifeline, stop.set) as line:
        fronts = socket.socket(fileno=handles.listening)
        if take_over and not await line.may_go(stop):
            return
        async with run_store_process(settings, fronts, with_relay=relay):
            quiet_garbage_collector()
            line.ready()
            await stop.wait()
    logs.close()


@contextlib.contextmanager
def _pool(
    settings: Settings,
    listening: socket.socket,
    folder: Path,
    announcer: Announcer,
    *,
    relay: bool,
) -> Iterator[ProcessPool]:
    metrics = folder / _METRICS
    metrics.mkdir()
    path = folder / _STORE_SOCKET
    with listen_unix(path) as fronts:
        command = _command(settings, relay=relay)
        store = _child("Store process", [*command, "--store"], fronts)
        taking = [*command, "--store-socket", str(path)]
        yield ProcessPool(
            store,
            [
                _child(f"Front process {number}", taking, listening)
                for number in range(1, settings.web_concurrency + 1)
            ],
            {**os.environ, SHARED_FOLDER: str(metrics)},
            say=announcer.say,
            ended=lambda pid: forget_gauges(pid, str(metrics)),
        )


def _child(name: str, command: Sequence[str], listening: socket.socket) -> Child:
    handle = listening.fileno()
    return Child(name, [*command, f"--listen-fd={handle}"], (handle,))


def _command(settings: Settings, *, relay: bool) -> list[str]:
    own = [sys.executable, "-m", "service", "serve", "--relay" if relay else "--no-relay"]
    fake = settings.fake_inngest_url
    return [*own, "--fake-inngest-url", fake] if fake else own


async def _run(
    pool: ProcessPool, stop: asyncio.Event, settings: Settings, url: str, announcer: Announcer
) -> int:
    running = asyncio.create_task(pool.run(), name="processes")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ready = asyncio.create_task(pool.ready(), name="ready")
    ended = {running, stopping}
    await asyncio.wait({*ended, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        listens = f"Listening on {url} with {settings.web_concurrency} front processes"
        inngest = make_client(settings).event_api_origin
        standing = await standing_of(settings.store_url)
        announcer.say(listens, banner(settings, url, inngest=inngest, standing=standing))
        async with ServiceManager(os.environ).told(listens):
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    stopping.cancel()
    announcer.say("Stopping: the processes finish requests and sends under way.")
    pool.stop()
    return await running
