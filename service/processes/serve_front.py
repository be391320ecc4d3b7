"""A front process: it takes requests and hands events to the store process.

It can be started again at any moment, so it loads no more than it needs.
"""

from __future__ import annotations

from service.bootstrap.web_part import run_front_process
from service.config.settings import Settings
from service.observe.log_stream import LogStream
from service.processes.child_process import Handles, lifeline
from service.processes.listen_on import listen_on
from service.processes.signals import stop_on_signals
from service.processes.startup import allow_many_connections, quiet_garbage_collector


async def serve_as_front(
    settings: Settings, logs: LogStream, handles: Handles, *, store: str
) -> None:
    """Take requests on the parent's sockets until SIGTERM, or until the parent is gone."""
    stop = stop_on_signals(logs)
    allow_many_connections()
    async with (
        lifeline(handles.lifeline, stop.set) as line,
        run_front_process(settings, store) as (app, recorder),
        listen_on(app, recorder, handles.sockets()) as server,
    ):
        quiet_garbage_collector()
        line.ready()
        await stop.wait()
        await server.let_go()
    logs.close()
