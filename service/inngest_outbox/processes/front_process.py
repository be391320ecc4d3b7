"""A front process: it takes requests and hands events to the store process.

It can be started again at any moment, so it loads no more than it needs.
"""

from __future__ import annotations

from inngest_outbox.bootstrap.web_part import run_front_process
from inngest_outbox.config.settings import Settings
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.processes.acceptor import listen_on
from inngest_outbox.processes.child_process import Handles, comes_first, lifeline
from inngest_outbox.processes.startup import (
    allow_many_connections,
    quiet_garbage_collector,
    stop_on_signals,
)

_LINGER_SECONDS = 10.0  # clients keep connections; the new version's fronts take their next ones


async def serve_as_front(
    settings: Settings, logs: LogStream, handles: Handles, *, store: str, take_over: bool
) -> None:
    """Take requests on the parent's sockets until SIGTERM, or until the parent is gone.

    With `take_over` it loads, and listens when the parent says so. When the parent asks for it,
    this process lets go: other fronts take the next connections, and each open one is used once
    more.
    """
    stop = stop_on_signals(logs)
    allow_many_connections()
    async with (
        lifeline(handles.lifeline, stop.set) as line,
        run_front_process(settings, store) as (app, recorder),
    ):
        if not take_over or await line.may_go(stop):
            async with listen_on(app, recorder, handles.sockets()) as server:
                quiet_garbage_collector()
                line.ready()
                await line.hand_over(stop)
                if not stop.is_set():
                    await comes_first(server.let_go(_LINGER_SECONDS), stop.wait())
                await server.let_go()
