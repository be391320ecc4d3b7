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

from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import OutboxUnavailableError, UpgradeError
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.observe.metrics import SHARED_FOLDER, forget_gauges
from inngest_outbox.observe.service_manager import ServiceManager
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.outbox import RemoteOutbox
from inngest_outbox.outbox.link.served import Served, outbox_at
from inngest_outbox.outbox.link.server import ServedPart, serve_link
from inngest_outbox.outbox.link.socket_folder import SERVICE, STORE, listen_in, socket_folder
from inngest_outbox.outbox.link.store_link import open_link
from inngest_outbox.processes.banner import Announcer, announcer_for, greet
from inngest_outbox.processes.child_process import Child, comes_first
from inngest_outbox.processes.development_inngest import open_inngest
from inngest_outbox.processes.listening import Listening
from inngest_outbox.processes.process_pool import STOPS, ProcessPool
from inngest_outbox.processes.startup import on_hangup, stop_on_signals

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
            socket_folder(outbox_at(known.store_url)) as folder,
            listen_in(folder, SERVICE) as own,
            _pool(known, listening, folder, announcer, relay=relay) as pool,
        ):
            stop = stop_on_signals(logs, then=pool.kill)
            upgrades = Upgrades(pool, announcer, manager, status)
            on_hangup(upgrades.ask)
            running = asyncio.create_task(pool.run(), name="processes")
            ended = asyncio.create_task(_first(running, stop), name="end")
            if await comes_first(pool.ready(), asyncio.shield(ended)):
                await _greet(announcer, known, listening.url, status, folder / STORE)
                manager.ready(status)
            async with serve_link(own, [ServedPart(Served, upgrades)], Status):
                await ended
                upgrades.cancel()
            manager.stopping()
            announcer.say("Stopping: the processes finish requests and sends under way.")
            listening.close()
            pool.stop()
            return await running


class Upgrades:
    """Upgrades of a service of several processes, one at a time, and what is said of them.

    `status` is what the service manager shows while all is well.
    """

    def __init__(
        self, pool: ProcessPool, announcer: Announcer, manager: ServiceManager, status: str
    ) -> None:
        self._pool = pool
        self._announcer = announcer
        self._manager = manager
        self._status = status
        self._running: asyncio.Task[str | None] | None = None

    async def upgrade(self) -> None:
        """See Served.upgrade."""
        running = self.ask()
        await asyncio.wait([running])
        if failure := STOPS if running.cancelled() else running.result():
            raise UpgradeError(failure)

    def ask(self) -> asyncio.Task[str | None]:
        """Begin an upgrade, unless one runs; the sentence of its failure."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="upgrade")
        return self._running

    def cancel(self) -> None:
        """Give up the upgrade that runs, if any: the service stops."""
        if self._running:
            self._running.cancel()

    async def _run(self) -> str | None:
        self._announcer.say("Upgrade: the new version loads.")
        self._manager.reloading()
        failure = None
        try:
            await self._pool.upgrade()
        except UpgradeError as error:
            failure = str(error)
        self._announcer.say(f"Upgrade failed: {failure}" if failure else "Upgrade: done.")
        self._manager.ready(self._status)
        return failure


async def _greet(
    announcer: Announcer, settings: Settings, url: str, sentence: str, store: Path
) -> None:
    """Say the banner, with what the store process knows: the parent opens no outbox."""
    try:
        async with open_link(str(store)) as link:
            known = settings.with_known_inngest(link.status.inngest)
            await greet(announcer, known, url, sentence, RemoteOutbox(link).inspector)
    except OutboxUnavailableError:  # it has ended again, or the machine is slow
        announcer.say(sentence)


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
    with listen_in(folder, STORE) as fronts:
        command = _command(settings, relay=relay)
        store = _child("Store process", [*command, "--store"], [fronts])
        taking = [*command, "--store-socket", str(folder / STORE)]
        yield ProcessPool(
            store,
            [
                _child(f"Front process {number}", taking, listening.sockets)
                for number in range(1, settings.web_concurrency + 1)
            ],
            {**os.environ, SHARED_FOLDER: str(metrics)},
            say=announcer.say,
            ended=lambda pid: forget_gauges(pid, str(metrics)),
            store_once=["--accept-loss"] if settings.accepts_loss else [],
        )


def _child(name: str, command: Sequence[str], listening: Sequence[socket.socket]) -> Child:
    handles = [one.fileno() for one in listening]
    return Child(name, [*command, *(f"--listen-fd={one}" for one in handles)], handles)


def _command(settings: Settings, *, relay: bool) -> list[str]:
    # -P: a folder of that name in the working directory is somebody else's.
    python = [sys.executable, "-P", "-m", "inngest_outbox"]
    own = [*python, "serve", "--relay" if relay else "--no-relay"]
    fake = settings.fake_inngest_url
    return [*own, "--fake-inngest-url", fake] if fake else own


async def _first(running: asyncio.Task[int], stop: asyncio.Event) -> None:
    """Wait until the processes have ended for good, or the service is to stop."""
    await comes_first(stop.wait(), asyncio.shield(running))
