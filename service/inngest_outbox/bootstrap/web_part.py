"""The web part of a service: it takes requests.

A process of its own for it, a front process, loads neither a store nor the relay.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

from inngest_outbox.app_settings.app_settings import AppSettings, load_defaults
from inngest_outbox.bootstrap.process import make_http, watch_process
from inngest_outbox.bootstrap.tracing import Tracing, start_tracing
from inngest_outbox.bootstrap.web import Running, make_app
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.sampler import Sampler
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.encryption import Encryption
from inngest_outbox.event_types.types_file import load_event_types
from inngest_outbox.inngest.address import run_link
from inngest_outbox.inngest.rest_api import make_rest_api
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.outbox import open_remote_outbox
from inngest_outbox.outbox.parts import WebOutbox
from inngest_outbox.supervisor import Supervisor, run_supervisor
from inngest_outbox.web.events.followed_event import FollowPolicy
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.events.run_asker import RunAsker

_ASK_TIMEOUT_SECONDS = 5.0

_LEAST_FOLLOWERS = 16


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
        settings = settings.with_known_inngest(outbox.status.inngest)
        sampler = Sampler(outbox.inspector, NullRecorder())
        supervisor.watch("sampler", sampler.run)
        watch_process(supervisor, recorder)
        app = await stack.enter_async_context(
            run_web(
                settings,
                outbox,
                lambda: outbox.status,
                recorder=recorder,
                supervisor=supervisor,
                sampler=sampler,
                tracing=tracing,
            )
        )
        yield app, recorder


@contextlib.asynccontextmanager
async def run_web(
    settings: Settings,
    outbox: WebOutbox,
    status: Callable[[], Status],
    *,
    recorder: PrometheusRecorder,
    supervisor: Supervisor,
    sampler: Sampler,
    tracing: Tracing | None,
) -> AsyncIterator[web.Application]:
    """The application over an outbox, and what works for its requests.

    `status` returns the state of the process that owns the outbox.
    """
    defaults = load_defaults(settings.app_settings_file)
    event_types = load_event_types(settings.event_types_file)
    encryption = _encryption(settings)
    async with (
        make_http(limit=20) as http,
        make_http(limit=20) as asking,  # an Inngest that hangs takes no connection from sign-ins
        _bucket(settings) as bucket,
    ):
        running = Running(
            outbox=outbox,
            status=status,
            supervisor=supervisor,
            recorder=recorder,
            bucket=bucket,
            http=http,
            app_settings=AppSettings(outbox.scopes, defaults),
            sampler=sampler,
            tracing=tracing,
            follower=_start_follower(settings, outbox, asking, supervisor, encryption),
            event_types=event_types,
            encryption=encryption,
        )
        yield make_app(settings, running)


def _encryption(settings: Settings) -> Encryption | None:
    keys = [key.get_secret_value() for key in settings.encryption_keys]
    return Encryption(keys) if keys else None


@contextlib.asynccontextmanager
async def _bucket(settings: Settings) -> AsyncIterator[Bucket | None]:
    if not settings.s3_bucket or not settings.s3_region:
        yield None
        return
    async with Bucket(settings.s3_bucket, settings.s3_region) as bucket:
        if settings.document_check != "off":
            bucket.open_soon()
        yield bucket


def _start_follower(
    settings: Settings,
    outbox: WebOutbox,
    http: aiohttp.ClientSession,
    supervisor: Supervisor,
    encryption: Encryption | None,
) -> EventFollower:
    """A follower at work under `supervisor`."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    policy = FollowPolicy(
        no_run_seconds=settings.no_run_seconds,
        max_followers_per_owner=max(_LEAST_FOLLOWERS, files // 4),
    )
    reader = make_rest_api(settings, http, timeout_seconds=_ASK_TIMEOUT_SECONDS)
    reveal = encryption.decrypted if encryption else None
    asker = RunAsker(reader, run_link(settings), policy, reveal) if reader else None
    follower = EventFollower(outbox.inspector, asker, policy)
    supervisor.watch("following", follower.look)
    supervisor.watch("ending-waits", follower.end_waits)
    if follower.runs_follow:
        supervisor.watch("asking-for-runs", follower.ask)
    return follower
