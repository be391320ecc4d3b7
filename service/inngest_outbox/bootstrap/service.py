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

from inngest_outbox.bootstrap.store_part import run_store_part
from inngest_outbox.bootstrap.stores import Outbox, refuse_appends
from inngest_outbox.bootstrap.tracing import start_tracing
from inngest_outbox.bootstrap.web_part import run_web
from inngest_outbox.config.settings import Settings
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.outbox.link.served import outbox_at
from inngest_outbox.outbox.link.socket_folder import STORE, service_socket
from inngest_outbox.relay.relay import Relay
from inngest_outbox.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a running `serve` process. `relay` is None where others deliver."""

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
    with start_tracing(settings) as tracing:
        async with run_store_part(settings, recorder, tracing, with_relay=with_relay) as store:
            await refuse_appends(store.outbox, settings)
            async with run_web(
                settings,
                store.outbox,
                store.status,
                recorder=recorder,
                supervisor=store.supervisor,
                sampler=store.sampler,
                tracing=tracing,
            ) as app:
                yield Service(app, store.outbox, store.relay, store.supervisor, recorder)


@contextlib.asynccontextmanager
async def run_relay_alone(settings: Settings) -> AsyncIterator[Supervisor]:
    """Delivery without intake; raises what `run_service` raises.

    Its socket is for commands alone: `outbox upgrade` looks for the service beside it.
    """
    with (
        start_tracing(settings) as tracing,
        service_socket(outbox_at(settings.store_url), STORE) as listening,
    ):
        async with run_store_part(
            settings, PrometheusRecorder(), tracing, with_relay=True, listening=listening
        ) as store:
            yield store.supervisor
