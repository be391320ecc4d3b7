"""`serve` and `relay`: run until told to stop, and stop gracefully.

SIGTERM and SIGINT stop accepting, let requests finish and sends settle, then close; a second one
ends the process at once. What was not settled goes out after the next start.
"""

from __future__ import annotations

import os

from service.bootstrap.inngest import make_client
from service.bootstrap.service import run_relay_alone, run_service
from service.cli.announce import announcer_for
from service.cli.banner import banner
from service.cli.development_inngest import open_inngest
from service.cli.listening import allow_many_connections, listen
from service.cli.signals import reload_on_hangup, stop_on_signals
from service.cli.standing import standing_of
from service.cli.startup import quiet_garbage_collector
from service.config.settings import Settings
from service.observe.log_stream import LogStream
from service.observe.service_manager import ServiceManager

_NOTHING_TO_RELOAD = (
    "SIGHUP: one process can't be replaced while it serves; with WEB_CONCURRENCY above 1 it can."
)


async def serve(
    settings: Settings, logs: LogStream, *, relay: bool = True, fake_inngest: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; `relay` says whether this process delivers too.

    With `fake_inngest` events go to a fake Inngest where nothing else is meant. Raises
    ConfigurationError, OutboxError, and OSError when the address can't be listened on.
    """
    stop = stop_on_signals(logs)
    announcer = announcer_for(settings)
    reload_on_hangup(lambda: announcer.say(_NOTHING_TO_RELOAD))
    allow_many_connections()
    async with (
        open_inngest(settings, fake=fake_inngest, say=announcer.say) as known,
        run_service(known, with_relay=relay) as service,
        listen(service.app, service.recorder, settings.host, settings.port) as url,
    ):
        quiet_garbage_collector()
        inngest = make_client(known).event_api_origin
        standing = await standing_of(known.store_url)
        listening = f"Listening on {url}"
        announcer.say(
            f"{listening} in {settings.app_env}",
            banner(known, url, inngest=inngest, standing=standing),
        )
        async with ServiceManager(os.environ).told(listening):
            await stop.wait()
        announcer.say("Stopping: finishing requests and sends under way.")
    logs.close()


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
