"""`serve` with one process, and `relay`: run until told to stop, and stop gracefully.

SIGTERM and SIGINT stop accepting, let requests finish and sends settle, then close; a second one
ends the process at once. What was not settled goes out after the next start.
"""

from __future__ import annotations

import os

from inngest_outbox.bootstrap.service import run_relay_alone, run_service
from inngest_outbox.config.settings import Settings
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.observe.service_manager import ServiceManager
from inngest_outbox.outbox.link.served import ONE_PROCESS
from inngest_outbox.processes.acceptor import listen_on
from inngest_outbox.processes.banner import announcer_for, greet
from inngest_outbox.processes.development_inngest import open_inngest
from inngest_outbox.processes.listening import Listening
from inngest_outbox.processes.startup import (
    allow_many_connections,
    ends_at_a_stop,
    on_hangup,
    quiet_garbage_collector,
    stop_on_signals,
)


async def serve(
    settings: Settings, logs: LogStream, listening: Listening, *, relay: bool, fake_inngest: bool
) -> None:
    """Serve until SIGTERM or SIGINT; without `relay` other processes deliver.

    With `fake_inngest` events go to a fake Inngest where nothing else is meant. Raises
    ConfigurationError and OutboxError.
    """
    stop = stop_on_signals(logs)
    announcer = announcer_for(settings)
    allow_many_connections()
    status = f"Listening on {listening.url}"
    on_hangup(lambda: announcer.say(ONE_PROCESS))
    async with (
        open_inngest(settings, fake=fake_inngest, say=announcer.say) as known,
        ends_at_a_stop(run_service(known, with_relay=relay), stop, logs) as service,
        listen_on(service.app, service.recorder, listening.sockets) as server,
    ):
        quiet_garbage_collector()
        sentence = f"{status} in {known.app_env}"
        await greet(announcer, known, listening.url, sentence, service.outbox.inspector)
        async with ServiceManager(os.environ).told(status):
            await stop.wait()
            announcer.say("Stopping: finishing requests and sends under way.")
        await server.let_go()


async def relay_only(settings: Settings, logs: LogStream) -> None:
    """Deliver without accepting, until SIGTERM or SIGINT; raises what `serve` raises."""
    stop = stop_on_signals(logs)
    announcer = announcer_for(settings)
    async with ends_at_a_stop(run_relay_alone(settings), stop, logs):
        quiet_garbage_collector()
        announcer.say("Delivering")
        async with ServiceManager(os.environ).told("Delivering"):
            await stop.wait()
        announcer.say("Stopping: finishing sends under way.")
