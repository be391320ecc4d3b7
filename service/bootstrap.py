"""The composition root: from Settings to everything that runs, as context managers.

The only module that names concrete classes. `serving` starts what a `serve` process needs, in the
order of its lines; leaving it stops the same in reverse, after the requests have finished.
"""

from __future__ import annotations

import contextlib
import secrets as random_secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import inngest
from aiohttp import web
from pydantic import SecretStr

from service.app_settings import AppSettings, load_defaults
from service.documents.bucket import Bucket
from service.documents.document_check import DocumentCheck
from service.errors import ConfigurationError, StorageNotConfiguredError
from service.identity.cookie_session import CookieSessionStorage
from service.identity.nextauth import AUTH_JS_5, NEXT_AUTH_4, NextAuthReader
from service.identity.operators import Operators
from service.identity.sessions import Sessions
from service.inngest_client import make_client
from service.observe.metrics import PrometheusRecorder
from service.observe.recorder import Recorder
from service.observe.supervisor import Supervisor, supervising
from service.outbox.sqlite_outbox import SqliteOutbox, open_sqlite_outbox
from service.relay.inngest import InngestSender
from service.relay.relay import Relay
from service.settings import Settings
from service.web.app import Resource, build_app
from service.web.app_settings import AppSettingsResource
from service.web.cross_site import CrossSite
from service.web.documents import documents_event
from service.web.event_route import EventRoute
from service.web.events import Events
from service.web.gate import Gate
from service.web.health import Health
from service.web.sign_in import SignIn
from service.web.uploads import Uploads

_SECRET_FILE = "development-session-secret"  # noqa: S105  (a file's name)
_HUNG_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Service:
    """What a running `serve` process is made of."""

    settings: Settings
    app: web.Application
    outbox: SqliteOutbox
    relay: Relay
    supervisor: Supervisor
    recorder: PrometheusRecorder


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """A whole service but for the listening socket.

    Raises ConfigurationError, OutboxBusyError, SchemaTooNewError, OutboxUnavailableError.
    """
    recorder = PrometheusRecorder()
    defaults = load_defaults(settings.app_settings_file)
    async with contextlib.AsyncExitStack() as stack:
        outbox = await stack.enter_async_context(open_outbox(settings))
        supervisor = await stack.enter_async_context(supervising(recorder))
        relay = await stack.enter_async_context(_relaying(settings, outbox, recorder, supervisor))
        bucket = await stack.enter_async_context(_bucket(settings))
        app = _app(
            settings, outbox, relay, supervisor, recorder, bucket, AppSettings(outbox, defaults)
        )
        yield Service(settings, app, outbox, relay, supervisor, recorder)


@contextlib.asynccontextmanager
async def open_outbox(settings: Settings) -> AsyncIterator[SqliteOutbox]:
    """The store that OUTBOX_URL names, for this process to write."""
    path = settings.sqlite_path
    if path is None:
        raise ConfigurationError(["OUTBOX_URL: PostgreSQL is not served yet"])
    async with open_sqlite_outbox(
        Path(path),
        max_pending=settings.max_pending,
        max_pending_per_user=settings.max_pending_per_user,
    ) as outbox:
        yield outbox


@contextlib.asynccontextmanager
async def _relaying(
    settings: Settings, outbox: SqliteOutbox, recorder: Recorder, supervisor: Supervisor
) -> AsyncIterator[Relay]:
    client = make_client(settings)
    connector = aiohttp.TCPConnector(limit=settings.senders * 2)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        relay = Relay(
            outbox,
            _sender(settings, client, session),
            recorder,
            max_events=settings.batch_events,
            max_bytes=settings.batch_bytes,
            senders=settings.senders,
            send_timeout_seconds=settings.send_timeout_seconds,
            drain_seconds=settings.drain_seconds,
            beat=lambda: supervisor.beat("relay"),
        )
        supervisor.watch("relay", relay.run, hung_after_seconds=_HUNG_SECONDS)
        supervisor.watch("lane", relay.keep_lane)
        try:
            yield relay
        finally:
            await supervisor.stop("relay")
            await relay.stop()
            await supervisor.stop("lane")


def _sender(
    settings: Settings, client: inngest.Inngest, session: aiohttp.ClientSession
) -> InngestSender:
    fallback = settings.inngest_event_key_fallback
    return InngestSender(
        session,
        origin=client.event_api_origin,
        key=client.event_key or "",
        fallback_key=fallback.get_secret_value() if fallback else None,
        environment=client.env,
        timeout_seconds=settings.send_timeout_seconds,
    )


@contextlib.asynccontextmanager
async def _bucket(settings: Settings) -> AsyncIterator[Bucket | None]:
    if not settings.s3_bucket or not settings.s3_region:
        yield None
        return
    async with Bucket(settings.s3_bucket, settings.s3_region) as bucket:
        yield bucket


def _app(  # noqa: PLR0917
    settings: Settings,
    outbox: SqliteOutbox,
    relay: Relay,
    supervisor: Supervisor,
    recorder: PrometheusRecorder,
    bucket: Bucket | None,
    app_settings: AppSettings,
) -> web.Application:
    sessions = make_sessions(settings)
    cross_site = CrossSite(settings.allowed_origins)
    operators = Operators(settings.operator_emails)
    gate = Gate(sessions, cross_site)

    def storage() -> Bucket:
        if bucket is None:
            raise StorageNotConfiguredError
        return bucket

    documents = documents_event(
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        app_settings=app_settings,
        look_up=DocumentCheck(settings.document_check, bucket) if bucket else _nothing,
    )
    resources: list[Resource] = [
        EventRoute(documents, outbox, gate.user),
        Events(outbox, gate.user, operators.includes),
        AppSettingsResource(app_settings, sessions, operators, cross_site),
        Uploads(storage=storage, user_of=gate.user),
        SignIn(
            sessions,
            cross_site,
            development=not settings.production,
            dev_login_anywhere=settings.dev_login,
        ),
        Health(
            faults=lambda: _faults(settings, outbox, supervisor),
            detail=lambda: _detail(relay, outbox),
            render_metrics=recorder.render,
            metrics_token=_plain(settings.metrics_token),
        ),
    ]
    return build_app(
        resources,
        sessions=sessions,
        cross_site=cross_site,
        recorder=recorder,
        secure=settings.production,
    )


def make_sessions(settings: Settings) -> Sessions:
    """All kinds of session that the settings allow, in their fixed order."""
    secrets = [secret.get_secret_value() for secret in settings.session_secret]
    own = CookieSessionStorage(
        secrets or [_development_secret(settings)], secure=settings.production
    )
    return Sessions(own, _readers(settings))


def _readers(settings: Settings) -> list[NextAuthReader]:
    """next-auth takes NEXTAUTH_SECRET before AUTH_SECRET, Auth.js the other way round."""
    newest_first = (settings.auth_secret_3, settings.auth_secret_2, settings.auth_secret_1)
    auth_js = [_plain(one) for one in (*newest_first, *settings.auth_secrets) if one]
    next_auth = _plain(settings.nextauth_secret)
    first = [next_auth] if next_auth else auth_js
    second = auth_js or [next_auth]
    return [
        NextAuthReader(flavour, [secret for secret in secrets if secret])
        for flavour, secrets in ((NEXT_AUTH_4, first), (AUTH_JS_5, second))
        if any(secrets)
    ]


def _development_secret(settings: Settings) -> str:
    """A secret made once for this folder, so that a restart signs nobody out."""
    path = Path(settings.sqlite_path or "data/outbox.db").with_name(_SECRET_FILE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(random_secrets.token_urlsafe(32), encoding="ascii")
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigurationError([f"SESSION_SECRET: none is set, and {path}: {error}"]) from error


def _faults(settings: Settings, outbox: SqliteOutbox, supervisor: Supervisor) -> list[str]:
    missing = [
        name
        for name, value in (
            ("AWS_S3_REGION", settings.s3_region),
            ("AWS_S3_BUCKET", settings.s3_bucket),
        )
        if not value
    ]
    faults = [f"not configured: {', '.join(missing)}"] if missing else []
    return [*faults, *([outbox.failure] if outbox.failure else []), *supervisor.faults]


def _detail(relay: Relay, outbox: SqliteOutbox) -> dict[str, object]:
    lane = relay.lane
    return {
        "lane": "paused" if lane.paused else lane.state.value,
        "laneReason": lane.reason or None,
        "undelivered": outbox.undelivered,
        "deliveredPerSecond": round(relay.rate, 1),
    }


async def _nothing(document_name: str) -> Mapping[str, object]:
    del document_name
    return {}


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
