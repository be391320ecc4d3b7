"""`serve` and `relay`: run until told to stop, and stop gracefully.

SIGTERM and SIGINT stop accepting, let requests finish and sends settle, then close; a second one
ends the process at once. What was not settled goes out after the next start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from service.bootstrap.service import run_relay_alone, run_service
from service.config.settings import Settings
from service.errors import SchemaTooNewError
from service.observe.log_stream import LogStream
from service.observe.service_manager import ServiceManager
from service.outbox.link.socket_folder import control_address
from service.processes.announce import Announcer, announcer_for
from service.processes.development_inngest import open_inngest
from service.processes.greeting import greet
from service.processes.listen_on import listen_on
from service.processes.listening import Listening
from service.processes.signals import may_continue, reload_on_hangup, stop_on_signals
from service.processes.startup import allow_many_connections, quiet_garbage_collector
from service.processes.successor import Successor
from service.processes.upgrade_socket import UPGRADE_SOCKET, serve_upgrades
from service.processes.upgrades import Upgrades
from service.web.server.server import HttpServer


async def serve(
    settings: Settings,
    logs: LogStream,
    listening: Listening,
    *,
    relay: bool = True,
    fake_inngest: bool = False,
) -> bool:
    """Serve until SIGTERM or SIGINT; `relay` says whether this process delivers too.

    With `fake_inngest` events go to a fake Inngest where nothing else is meant. Returns whether
    this process shall become the new version of its program: that has the outbox, or failed after
    it had migrated it so far that this version can't open it. Raises ConfigurationError,
    OutboxError, and OSError when the sockets can't be listened on.
    """
    stop = stop_on_signals(logs)
    announcer = announcer_for(settings)
    allow_many_connections()
    manager, status = ServiceManager(os.environ), f"Listening on {listening.url}"
    successor = Successor(stop, announcer.say)
    upgrades = Upgrades(successor.replace, announcer.say, manager, status)
    reload_on_hangup(upgrades.ask)
    async with (
        contextlib.AsyncExitStack() as upgrade_socket,
        manager.watched(),
        open_inngest(settings, fake=fake_inngest, say=announcer.say) as known,
    ):
        begins, is_replaced = True, False
        while not is_replaced:
            try:
                async with _accepting(known, listening, relay=relay) as server:
                    if begins:
                        await greet(announcer, known, listening.url, f"{status} in {known.app_env}")
                        manager.ready(status)
                        await upgrade_socket.enter_async_context(_upgrade_socket(known, upgrades))
                    comes = await successor.comes()
                    await _let_go(server, listening, manager, announcer, is_upgrade=comes)
                begins, is_replaced = False, comes and await successor.takes_over()
            except SchemaTooNewError:
                if begins:
                    raise
                announcer.say("The outbox is migrated: this process becomes the new version.")
                is_replaced = True
            if stop.is_set():
                break
    logs.close()
    return is_replaced and await may_continue(stop)


@contextlib.asynccontextmanager
async def _accepting(
    settings: Settings, listening: Listening, *, relay: bool
) -> AsyncIterator[HttpServer]:
    """The server that takes requests, with the outbox open behind it."""
    async with (
        run_service(settings, with_relay=relay) as service,
        listen_on(service.app, service.recorder, listening.copies()) as server,
    ):
        quiet_garbage_collector()
        yield server


async def _let_go(
    server: HttpServer,
    listening: Listening,
    manager: ServiceManager,
    announcer: Announcer,
    *,
    is_upgrade: bool,
) -> None:
    announcer.say("Stopping: finishing requests and sends under way.")
    if not is_upgrade:
        manager.stopping()
    if is_upgrade or listening.passed.are_kept:
        await server.let_go()
    else:
        listening.close()


@contextlib.asynccontextmanager
async def _upgrade_socket(settings: Settings, upgrades: Upgrades) -> AsyncIterator[None]:
    with control_address(UPGRADE_SOCKET) as address:
        async with serve_upgrades(address, settings.store_url, upgrades):
            yield


async def relay_only(settings: Settings, logs: LogStream) -> None:
    """Deliver without accepting, until SIGTERM or SIGINT; raises what `serve` raises."""
    stop = stop_on_signals(logs)
    announcer = announcer_for(settings)
    async with run_relay_alone(settings):
        quiet_garbage_collector()
        announcer.say("Delivering")
        async with ServiceManager(os.environ).told("Delivering"):
            await stop.wait()
        announcer.say("Stopping: finishing sends under way.")
    logs.close()
