"""`serve` with WEB_CONCURRENCY above 1: the parent.

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
from pathlib import Path

from service.config.settings import Settings
from service.observe.log_stream import LogStream
from service.observe.recorder import NullRecorder
from service.observe.service_manager import ServiceManager
from service.observe.shared_metrics import SHARED_FOLDER, forget_gauges
from service.outbox.link.outbox import open_remote_outbox
from service.outbox.link.socket_folder import socket_folder
from service.processes.banner import Announcer, announcer_for, greet
from service.processes.child_process import Child, comes_first
from service.processes.development_inngest import open_inngest
from service.processes.listening import Listening, listen_unix
from service.processes.process_pool import ProcessPool
from service.processes.signals import on_hangup, stop_on_signals
from service.processes.upgrade_socket import UPGRADE_SOCKET, serve_upgrades
from service.processes.upgrades import Upgrades
from service.supervisor import run_supervisor

_STORE_SOCKET = "store"
_METRICS = "metrics"


async def serve_with_processes(
    settings: Settings, logs: LogStream, listening: Listening, *, relay: bool, fake_inngest: bool
) -> int:
    """Serve by a store process and WEB_CONCURRENCY front processes; returns the exit status."""
    announcer = announcer_for(settings)
    manager = ServiceManager(os.environ)
    status = f"Listening on {listening.url} with {settings.web_concurrency} front processes"
    async with (
        manager.watched(),
        open_inngest(settings, fake=fake_inngest, say=announcer.say) as known,
    ):
        with (
            socket_folder() as folder,
            _pool(known, listening, folder, announcer, relay=relay) as pool,
        ):
            stop = stop_on_signals(logs, then=pool.kill)
            upgrades = Upgrades(pool.upgrade, announcer.say, manager, status)
            on_hangup(upgrades.ask)
            running = asyncio.create_task(pool.run(), name="processes")
            ended = asyncio.create_task(_first(running, stop), name="end")
            if await comes_first(pool.ready(), asyncio.shield(ended)):
                await _greet(announcer, known, listening.url, status, folder / _STORE_SOCKET)
                manager.ready(status)
            async with serve_upgrades(str(folder / UPGRADE_SOCKET), known.store_url, upgrades):
                await ended
            manager.stopping()
            announcer.say("Stopping: the processes finish requests and sends under way.")
            listening.close()
            upgrades.cancel()
            pool.stop()
            return await running


async def _greet(
    announcer: Announcer, settings: Settings, url: str, sentence: str, store: Path
) -> None:
    """Say the banner, with what the store process knows: the parent opens no outbox."""
    async with (
        run_supervisor(NullRecorder()) as supervisor,
        open_remote_outbox(str(store), supervisor) as outbox,
    ):
        known = settings.with_known_inngest(outbox.status.inngest)
        await greet(announcer, known, url, sentence, outbox.inspector)


@contextlib.contextmanager
def _pool(
    settings: Settings,
    listening: Listening,
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
        store = _child("Store process", [*command, "--store"], [fronts])
        taking = [*command, "--store-socket", str(path)]
        yield ProcessPool(
            store,
            [
                _child(f"Front process {number}", taking, listening.sockets)
                for number in range(1, settings.web_concurrency + 1)
            ],
            {**os.environ, SHARED_FOLDER: str(metrics)},
            say=announcer.say,
            ended=lambda pid: forget_gauges(pid, str(metrics)),
        )


def _child(name: str, command: Sequence[str], listening: Sequence[socket.socket]) -> Child:
    handles = [one.fileno() for one in listening]
    return Child(name, [*command, *(f"--listen-fd={one}" for one in handles)], handles)


def _command(settings: Settings, *, relay: bool) -> list[str]:
    own = [sys.executable, "-m", "service", "serve", "--relay" if relay else "--no-relay"]
    fake = settings.fake_inngest_url
    return [*own, "--fake-inngest-url", fake] if fake else own


async def _first(running: asyncio.Task[int], stop: asyncio.Event) -> None:
    """Wait until the processes have ended for good, or the service is to stop."""
    await comes_first(stop.wait(), asyncio.shield(running))
