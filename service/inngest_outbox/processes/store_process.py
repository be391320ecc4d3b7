"""The store process: it owns the outbox, delivers, and serves the front processes.

It can be started again at any moment, so it loads no more than it needs.
"""

from __future__ import annotations

from inngest_outbox.bootstrap.store_part import load_store, run_store_process
from inngest_outbox.config.settings import Settings
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.processes.child_process import Handles, lifeline
from inngest_outbox.processes.startup import (
    allow_many_connections,
    ends_at_a_stop,
    quiet_garbage_collector,
    stop_on_signals,
)


async def serve_as_store(
    settings: Settings, logs: LogStream, handles: Handles, *, relay: bool, take_over: bool
) -> None:
    """Own the outbox and deliver until SIGTERM, or until the parent is gone.

    With `take_over` the outbox is opened when the parent says that the process before has let go;
    where no event can be stored this raises OutboxUnavailableError. When the parent asks for the
    outbox, this process lets go, and opens it again if told so. A stop while the outbox is opened
    ends the process: a migration under way is undone.
    """
    stop = stop_on_signals(logs)
    allow_many_connections()
    [listening] = handles.sockets()
    with listening:
        async with lifeline(handles.lifeline, stop.set) as line:
            load_store(settings)
            may_open = not take_over or await line.may_go(stop)
            while may_open:
                opening = run_store_process(
                    settings, listening.dup(), with_relay=relay, take_over=take_over
                )
                async with ends_at_a_stop(opening, stop, logs):
                    take_over = False
                    settings = settings.with_accepted_loss(accepts=False)
                    quiet_garbage_collector()
                    line.ready()
                    await line.hand_over(stop)
                may_open = not stop.is_set() and await line.may_go(stop)
