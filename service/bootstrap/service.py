"""The composition root: from Settings to everything that runs, as context managers.

This folder is the only place that names concrete classes. `run_service` starts what a `serve`
process needs, in the order of its lines. Leaving it stops the same in reverse, after the requests
have finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from service.app_settings.app_settings import AppSettings, load_defaults
from service.bootstrap.delivery import run_relay
from service.bootstrap.following import start_follower
from service.bootstrap.http import make_http
from service.bootstrap.stores import Outbox, open_served_outbox
from service.bootstrap.tracing import start_tracing
from service.bootstrap.web import Running, make_app
from service.config.settings import Settings
from service.documents.bucket import Bucket
from service.errors import ConfigurationError
from service.event_types.types_file import load_event_types
from service.observe.file_descriptors import DescriptorShortage
from service.observe.metrics import PrometheusRecorder
from service.operations.sampler import Sampler
from service.relay.relay import Relay
from service.supervisor import Supervisor, run_supervisor

_ONE_PROCESS = (
    "OUTBOX_URL: an SQLite outbox has exactly one process, which delivers too; "
    "use PostgreSQL to serve without a relay"
)


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
    if settings.sqlite_path and not with_relay:
        raise ConfigurationError([_ONE_PROCESS])
    recorder = PrometheusRecorder()
    defaults = load_defaults(settings.app_settings_file)
    event_types = load_event_types(settings.event_types_file)
    async with contextlib.AsyncExitStack() as stack:
        tracing = stack.enter_context(start_tracing(settings))
        outbox = await stack.enter_async_context(open_served_outbox(settings, recorder))
        supervisor = await stack.enter_async_context(run_supervisor(recorder))
        sampler = Sampler(outbox.inspector, recorder)
        supervisor.watch("sampler", sampler.run)
        supervisor.watch("event-loop-lag", sampler.keep_lag)
        supervisor.watch("file-descriptors", DescriptorShortage(recorder).watch)
        relay = None
        if with_relay:
            relay = await stack.enter_async_context(
                run_relay(settings, outbox, recorder, supervisor, tracing)
            )
        http = await stack.enter_async_context(make_http(limit=20))
        follower = start_follower(settings, outbox, http, supervisor)
        bucket = await stack.enter_async_context(_bucket(settings))
        running = Running(
            outbox=outbox,
            relay=relay,
            supervisor=supervisor,
            recorder=recorder,
            bucket=bucket,
            http=http,
            app_settings=AppSettings(outbox.settings, defaults),
            sampler=sampler,
            tracing=tracing,
            follower=follower,
            event_types=event_types,
        )
        yield Service(make_app(settings, running), outbox, relay, supervisor, recorder)


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


@contextlib.asynccontextmanager
async def _bucket(settings: Settings) -> AsyncIterator[Bucket | None]:
    if not settings.s3_bucket or not settings.s3_region:
        yield None
        return
    async with Bucket(settings.s3_bucket, settings.s3_region) as bucket:
        yield bucket
