"""The composition root: from Settings to everything that runs, as context managers.

This folder is the only place that names concrete classes. A service is a store part, which owns the
outbox and delivers, and a web part, which takes requests. `run_service` runs both in one process;
`run_store_process` and `run_front_process` run them in processes of their own. Leaving a context
stops what runs in reverse, after the requests have finished.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from service.app_settings.app_settings import AppSettings, load_defaults
from service.bootstrap.delivery import run_relay
from service.bootstrap.following import start_follower
from service.bootstrap.http import make_http
from service.bootstrap.readiness import StoreReadiness, store_readiness, store_status
from service.bootstrap.stores import Outbox, WebOutbox, open_served_outbox, store_faults
from service.bootstrap.tracing import Tracing, start_tracing
from service.bootstrap.web import Running, make_app
from service.config.settings import Settings
from service.documents.bucket import Bucket
from service.errors import ConfigurationError
from service.event_types.types_file import load_event_types
from service.observe.file_descriptors import DescriptorShortage
from service.observe.metrics import PrometheusRecorder
from service.observe.recorder import NullRecorder, Recorder
from service.operations.history import History
from service.operations.loop_lag import keep_lag
from service.operations.sampler import Sampler
from service.outbox.remote.messages import Status
from service.outbox.remote.outbox import open_remote_outbox
from service.outbox.remote.server import serve_outbox
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


@dataclass(frozen=True, slots=True)
class _Store:
    """The part that owns the outbox."""

    outbox: Outbox
    sampler: Sampler
    supervisor: Supervisor


@contextlib.asynccontextmanager
async def run_service(settings: Settings, *, with_relay: bool = True) -> AsyncIterator[Service]:
    """A whole service but for the listening socket.

    Raises ConfigurationError, OutboxBusyError, SchemaTooNewError, OutboxUnavailableError.
    """
    recorder = PrometheusRecorder()
    async with contextlib.AsyncExitStack() as stack:
        tracing = stack.enter_context(start_tracing(settings))
        store = await stack.enter_async_context(_open_store(settings, recorder, relay=with_relay))
        relay = await stack.enter_async_context(
            _deliver(settings, store, recorder, tracing, wanted=with_relay)
        )
        app = await stack.enter_async_context(
            _run_web(
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
async def run_store_process(
    settings: Settings, fronts: socket.socket, *, with_relay: bool = True
) -> AsyncIterator[None]:
    """The outbox and its delivery, for the front processes that connect to `fronts`.

    At its end the sends settle first, while fronts are still served. Raises what `run_service`
    raises.
    """
    recorder = PrometheusRecorder()
    relay: Relay | None = None
    async with contextlib.AsyncExitStack() as stack:
        tracing = stack.enter_context(start_tracing(settings))
        store = await stack.enter_async_context(_open_store(settings, recorder, relay=with_relay))

        def status() -> Status:
            return store_status(store.outbox, relay, store.supervisor.faults)

        await stack.enter_async_context(serve_outbox(fronts, store.outbox, status))
        relay = await stack.enter_async_context(
            _deliver(settings, store, recorder, tracing, wanted=with_relay)
        )
        yield


@contextlib.asynccontextmanager
async def run_front_process(
    settings: Settings, store: str
) -> AsyncIterator[tuple[web.Application, Recorder]]:
    """The web part of a service whose store process listens at the Unix socket `store`."""
    recorder = PrometheusRecorder()
    async with contextlib.AsyncExitStack() as stack:
        tracing = stack.enter_context(start_tracing(settings))
        supervisor = await stack.enter_async_context(run_supervisor(recorder))
        outbox = await stack.enter_async_context(open_remote_outbox(store, supervisor))
        sampler = Sampler(outbox.inspector, NullRecorder())
        supervisor.watch("sampler", sampler.run)
        _watch_process(supervisor, recorder)
        app = await stack.enter_async_context(
            _run_web(
                settings,
                outbox,
                StoreReadiness(
                    faults=lambda: [*store_faults(outbox), *outbox.status.faults],
                    detail=lambda: outbox.status.detail,
                ),
                recorder=recorder,
                supervisor=supervisor,
                sampler=sampler,
                tracing=tracing,
            )
        )
        yield app, recorder


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
async def _open_store(
    settings: Settings, recorder: Recorder, *, relay: bool
) -> AsyncIterator[_Store]:
    """The outbox and who samples it. `relay` is whether this service delivers too."""
    if settings.sqlite_path and not relay:
        raise ConfigurationError([_ONE_PROCESS])
    async with (
        open_served_outbox(settings, recorder) as outbox,
        run_supervisor(recorder) as supervisor,
    ):
        sampler = Sampler(outbox.inspector, recorder, History(outbox.samples))
        supervisor.watch("sampler", sampler.run)
        _watch_process(supervisor, recorder)
        yield _Store(outbox, sampler, supervisor)


@contextlib.asynccontextmanager
async def _deliver(
    settings: Settings,
    store: _Store,
    recorder: Recorder,
    tracing: Tracing | None,
    *,
    wanted: bool,
) -> AsyncIterator[Relay | None]:
    if not wanted:
        yield None
        return
    async with run_relay(settings, store.outbox, recorder, store.supervisor, tracing) as relay:
        yield relay


def _watch_process(supervisor: Supervisor, recorder: Recorder) -> None:
    supervisor.watch("event-loop-lag", lambda: keep_lag(recorder))
    supervisor.watch("file-descriptors", DescriptorShortage(recorder).watch)


@contextlib.asynccontextmanager
async def _run_web(
    settings: Settings,
    outbox: WebOutbox,
    readiness: StoreReadiness,
    *,
    recorder: PrometheusRecorder,
    supervisor: Supervisor,
    sampler: Sampler,
    tracing: Tracing | None,
) -> AsyncIterator[web.Application]:
    defaults = load_defaults(settings.app_settings_file)
    event_types = load_event_types(settings.event_types_file)
    async with make_http(limit=20) as http, _bucket(settings) as bucket:
        running = Running(
            outbox=outbox,
            readiness=readiness,
            supervisor=supervisor,
            recorder=recorder,
            bucket=bucket,
            http=http,
            app_settings=AppSettings(outbox.settings, defaults),
            sampler=sampler,
            tracing=tracing,
            follower=start_follower(settings, outbox, http, supervisor),
            event_types=event_types,
        )
        yield make_app(settings, running)


@contextlib.asynccontextmanager
async def _bucket(settings: Settings) -> AsyncIterator[Bucket | None]:
    if not settings.s3_bucket or not settings.s3_region:
        yield None
        return
    async with Bucket(settings.s3_bucket, settings.s3_region) as bucket:
        yield bucket
