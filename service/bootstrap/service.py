"""The composition root: from Settings to everything that runs, as context managers.

This folder is the only place that names concrete classes. A service is a store part, which owns the
outbox and delivers, and a web part, which takes requests. `run_service` runs both in one process;
`run_store_process` and `run_front_process` run them in processes of their own. Leaving a context
stops what runs in reverse, after the requests have finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from service.bootstrap.delivery import run_relay
from service.bootstrap.readiness import store_readiness
from service.bootstrap.store_part import deliver, open_store
from service.bootstrap.stores import Outbox, open_served_outbox
from service.bootstrap.tracing import start_tracing
from service.bootstrap.web_part import run_web
from service.config.settings import Settings
from service.observe.metrics import PrometheusRecorder
from service.relay.relay import Relay
from service.supervisor import Supervisor, run_supervisor


@dataclass(frozen=True, slots=True)
class Service:
    """What a running `serve` process is made of. `relay` is None where others deliver."""

    app: web.Application
    outbox: Outbox
    relay: Relay | None
    supervisor: Supervisor
    recorder: PrometheusRecorder


@contextlib.asynccontextmanager
async def run_service(settings: Settings, *, with_relay: bool = True) -> AsyncIterator[Service]:
    """A whole service but for the listening socket.

    Raises ConfigurationError, OutboxBusyError, SchemaTooNewError, OutboxUnavailableError.
    """
    recorder = PrometheusRecorder()
    async with contextlib.AsyncExitStack() as stack:
        tracing = stack.enter_context(start_tracing(settings))
        store = await stack.enter_async_context(open_store(settings, recorder, relay=with_relay))
        relay = await stack.enter_async_context(
            deliver(settings, store, recorder, tracing, wanted=with_relay)
        )
        app = await stack.enter_async_context(
            run_web(
                settings,
                store.outbox,
                store_readiness(store.outbox, relay),
                recorder=recorder,
                supervisor=store.supervisor,
                sampler=store.sampler,
                tracing=tracing,
            )
        )
        yield Service(app, store.outbox, relay, store.supervisor, recorder)


@contextlib.asynccontextmanager
async def run_relay_alone(settings: Settings) -> AsyncIterator[Supervisor]:
    """Delivery without intake; raises what `run_service` raises."""
    recorder = PrometheusRecorder()
    with start_tracing(settings) as tracing:
        async with (
            open_served_outbox(settings, recorder) as outbox,
            run_supervisor(recorder) as supervisor,
            run_relay(settings, outbox, recorder, supervisor, tracing),
        ):
            yield supervisor
