"""`serve` and `relay`: run until told to stop, and stop gracefully.

SIGTERM and SIGINT stop accepting, let requests finish and sends settle, then close; a second one
ends the process at once. What was not settled goes out after the next start.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence

from service.bootstrap.inngest import make_client
from service.bootstrap.service import run_relay_alone, run_service
from service.bootstrap.stores import Outbox
from service.cli.announce import Announcer
from service.cli.banner import banner
from service.cli.development_inngest import open_inngest
from service.cli.listening import allow_many_connections, listen, listen_on, shared_socket, url_of
from service.cli.process_pool import Workers, lifeline
from service.cli.signals import stop_on_signals
from service.config.settings import Settings
from service.errors import OutboxUnavailableError
from service.observe.log_stream import LogStream
from service.observe.service_manager import ServiceManager
from service.operations.views import PAUSED, delivery_view


async def serve(
    settings: Settings, logs: LogStream, *, relay: bool = True, fake_inngest: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; `relay` says whether this process delivers too.

    With `fake_inngest` events go to a fake Inngest where nothing else is meant. Raises
    ConfigurationError, OutboxError, and OSError when the address can't be listened on.
    """
    stop = stop_on_signals(logs)
    announcer = _announcer(settings)
    allow_many_connections()
    async with (
        open_inngest(settings, fake=fake_inngest, say=announcer.say) as known,
        run_service(known, with_relay=relay) as service,
        listen(service.app, service.recorder, settings.host, settings.port) as url,
    ):
        _quiet_garbage_collector()
        inngest = make_client(known).event_api_origin
        waiting = service.outbox.undelivered
        paused = await _pause(service.outbox)
        listening = f"Listening on {url}"
        announcer.say(
            f"{listening} in {settings.app_env}",
            banner(known, url, inngest=inngest, waiting=waiting, paused=paused),
        )
        async with ServiceManager(os.environ).told(listening):
            await stop.wait()
        announcer.say("Stopping: finishing requests and sends under way.")
    logs.close()


async def serve_as_worker(
    settings: Settings, logs: LogStream, *, relay: bool, listen_fd: int, lifeline_fd: int
) -> None:
    """Serve on the parent's socket until SIGTERM, or until the parent is gone."""
    stop = stop_on_signals(logs)
    allow_many_connections()
    with lifeline(lifeline_fd, stop.set) as hello:
        async with (
            run_service(settings, with_relay=relay) as service,
            listen_on(service.app, service.recorder, listen_fd),
        ):
            _quiet_garbage_collector()
            hello()
            await stop.wait()
    logs.close()


async def serve_with_workers(
    settings: Settings, logs: LogStream, command: Sequence[str], *, fake_inngest: bool
) -> int:
    """Serve by WEB_CONCURRENCY processes of `command`; returns the exit status."""
    announcer = _announcer(settings)
    with shared_socket(settings.host, settings.port) as listening:
        async with open_inngest(settings, fake=fake_inngest, say=announcer.say) as known:
            fake = known.fake_inngest_url
            own = [*command, "--fake-inngest-url", fake] if fake else command
            workers = Workers(own, listening, count=settings.web_concurrency, say=announcer.say)
            stop = stop_on_signals(logs, then=workers.kill)
            url = url_of(settings.host, listening.getsockname()[1])
            return await _run_workers(workers, stop, known, url, announcer)


async def _run_workers(
    workers: Workers, stop: asyncio.Event, settings: Settings, url: str, announcer: Announcer
) -> int:
    running = asyncio.create_task(workers.run(), name="workers")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    accepting = asyncio.create_task(workers.accept(), name="accept")
    ended = {running, stopping}
    await asyncio.wait({*ended, accepting}, return_when=asyncio.FIRST_COMPLETED)
    if accepting.done():
        listens = f"Listening on {url} with {settings.web_concurrency} processes"
        announcer.say(
            listens, banner(settings, url, inngest=make_client(settings).event_api_origin)
        )
        async with ServiceManager(os.environ).told(listens):
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    accepting.cancel()
    stopping.cancel()
    announcer.say("Stopping: the processes finish requests and sends under way.")
    workers.stop()
    return await running


async def relay_only(settings: Settings, logs: LogStream) -> None:
    """Deliver without accepting, until SIGTERM or SIGINT; raises what `serve` raises."""
    stop = stop_on_signals(logs)
    announcer = _announcer(settings)
    async with run_relay_alone(settings):
        _quiet_garbage_collector()
        announcer.say("Delivering")
        async with ServiceManager(os.environ).told("Delivering"):
            await stop.wait()
        announcer.say("Stopping: finishing sends under way.")
    logs.close()


async def _pause(outbox: Outbox) -> str:
    """Who paused delivery and why; nothing when it is not paused, or can't be read now."""
    try:
        delivery = delivery_view(await outbox.delivery.load())
    except OutboxUnavailableError:
        return ""
    return delivery.reason or "" if delivery.state == PAUSED else ""


def _announcer(settings: Settings) -> Announcer:
    return Announcer(as_json=settings.log_format == "json")


def _quiet_garbage_collector() -> None:
    """What lives as long as the process is not looked at again by each collection."""
    gc.collect()
    gc.freeze()
