"""The web application of a service: its resources, made from the parts that run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import aiohttp
from aiohttp import web

from inngest_outbox.app_settings.app_settings import AppSettings
from inngest_outbox.bootstrap.identity import (
    make_event_keys,
    make_sessions,
    oidc_resource,
    session_secrets,
    user_issuer,
)
from inngest_outbox.bootstrap.tracing import Tracing
from inngest_outbox.config.destination import confirmation_mode, destination
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import plain
from inngest_outbox.console.operations.actions import OperatorActions, Payloads
from inngest_outbox.console.operations.bulk import Proposals
from inngest_outbox.console.operations.paced import PacedReplays
from inngest_outbox.console.operations.sampler import Sampler
from inngest_outbox.console.operations.search import Search, SearchPolicy
from inngest_outbox.console.pages.changes import Changes
from inngest_outbox.console.pages.charts import ChartSource
from inngest_outbox.console.pages.desk import Desk
from inngest_outbox.console.pages.event_page import EventPage
from inngest_outbox.console.pages.lists import Lists
from inngest_outbox.console.pages.overview import OperatorPage, Overview
from inngest_outbox.documents.bucket import Bucket, BucketHealth
from inngest_outbox.documents.document_check import DocumentCheck
from inngest_outbox.documents.document_name import Documents
from inngest_outbox.encryption import Encryption
from inngest_outbox.event_types.declaration import Declaration
from inngest_outbox.event_types.declared_type import make_event_type
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.user import DEV_ISSUER, Operators
from inngest_outbox.inngest.address import event_link
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.outbox.keys import Digests, plain_digests
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.parts import WebOutbox
from inngest_outbox.outbox.row_lookup import RowLookup
from inngest_outbox.supervisor import Supervisor
from inngest_outbox.web.app import Resource, build_app
from inngest_outbox.web.events.event_stream import EventStream
from inngest_outbox.web.events.events import EventAccess, Events
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.events.own_events import OwnEvents
from inngest_outbox.web.intake.event_batch import EventBatches
from inngest_outbox.web.intake.event_route import EventRoute
from inngest_outbox.web.intake.inngest_intake import InngestIntake
from inngest_outbox.web.intake.machine_events import MachineEvents
from inngest_outbox.web.intake.sealed_events import SealedEvents
from inngest_outbox.web.pages.error_pages import LOGIN, ErrorPages
from inngest_outbox.web.pages.page import Pages
from inngest_outbox.web.pages.start import StartPage
from inngest_outbox.web.resources.app_settings import AppSettingsResource
from inngest_outbox.web.resources.health import Health
from inngest_outbox.web.resources.uploads import Uploads
from inngest_outbox.web.server.body_budget import BodyBudget
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import Proxies, proxies_key
from inngest_outbox.web.signin.auth import Authenticator, EventKeyAuth, RateLimit
from inngest_outbox.web.signin.dev_login import DevSignIn
from inngest_outbox.web.signin.sign_in import SignIn

_CHANGE_SEARCH = SearchPolicy(budget_seconds=8.0)
_OWN_SEARCH = SearchPolicy(window=5_000, late_rows=1_000, budget_seconds=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The running parts behind the application."""

    outbox: WebOutbox
    status: Callable[[], Status]
    supervisor: Supervisor
    recorder: PrometheusRecorder
    bucket: Bucket | None
    http: aiohttp.ClientSession
    app_settings: AppSettings
    sampler: Sampler
    tracing: Tracing | None
    follower: EventFollower
    event_types: tuple[Declaration, ...]
    encryption: Encryption | None


def make_app(settings: Settings, running: Running) -> web.Application:
    """The application over what runs."""
    secrets = session_secrets(settings)
    sessions = make_sessions(settings, secrets, running.outbox.scopes, running.http)
    proxies = Proxies(settings.trusted_proxies)
    cross_site = CrossSite(settings.allowed_origins, secure=settings.production, proxies=proxies)
    rate_limit = RateLimit(settings.rate_limit_per_user)
    authenticator = Authenticator(sessions, cross_site, rate_limit)
    keys = EventKeyAuth(make_event_keys(settings), authenticator, rate_limit)
    pages = Pages()
    oidc = oidc_resource(settings, secrets, sessions, proxies, running.http)
    operators = Operators(settings.operator_emails)
    documents = _documents(settings, running.bucket)
    page = _operator_page(settings, running, authenticator, operators)
    resources: list[Resource] = [
        *_intake(documents, running, keys),
        *_events(running, keys, operators),
        AppSettingsResource(running.app_settings, authenticator, operators),
        Uploads(storage=lambda: _storage(documents, running.bucket), user_of=authenticator.user),
        SignIn(sessions, cross_site),
        _dev_sign_in(settings, sessions, cross_site, pages),
        *([oidc] if oidc else []),
        *_start(settings, running, pages, sessions, operators),
        _health(settings, running),
        page,
    ]
    app = build_app(
        resources,
        sessions=sessions,
        cross_site=cross_site,
        recorder=running.recorder,
        error_pages=ErrorPages(pages, _sign_in_path(settings)),
        body_budget=BodyBudget(settings.max_body_bytes_in_flight),
        secure=settings.production,
    )
    app[proxies_key] = proxies
    if running.tracing:
        app.middlewares.insert(0, running.tracing.middleware)
    app.on_shutdown.append(page.close)
    app.on_shutdown.append(_let_go(running.follower))
    return app


def _start(
    settings: Settings, running: Running, pages: Pages, sessions: Sessions, operators: Operators
) -> list[Resource]:
    """The start page, in development only."""
    if settings.production:
        return []
    return [
        StartPage(
            pages,
            sessions,
            running.event_types,
            sign_in_path=_sign_in_path(settings),
            operators=settings.operator_emails,
            is_operator=operators.includes,
        )
    ]


def _dev_sign_in(
    settings: Settings, sessions: Sessions, cross_site: CrossSite, pages: Pages
) -> DevSignIn:
    return DevSignIn(
        sessions,
        cross_site,
        pages,
        issuer=None if settings.production else user_issuer(settings, DEV_ISSUER),
        anywhere=settings.dev_login,
    )


def _documents(settings: Settings, bucket: Bucket | None) -> Documents:
    return Documents(
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        scope=settings.document_scope,
        look_up=DocumentCheck(settings.document_check, bucket) if bucket else _nothing,
        missing=settings.missing_storage,
    )


def _storage(documents: Documents, bucket: Bucket | None) -> Bucket:
    documents.require()
    return cast("Bucket", bucket)  # it is open where nothing is missing


def _intake(documents: Documents, running: Running, keys: EventKeyAuth) -> Iterator[Resource]:
    """The doors that take events."""
    stored, tracing, recorder = running.outbox.intake, running.tracing, running.recorder
    intake = tracing.intake(stored) if tracing else stored
    digests = _digests(running.encryption)
    for declared in running.event_types:
        kind = make_event_type(declared, documents, running.app_settings, running.encryption)
        yield EventRoute(kind, intake, keys.sender(kind.senders), recorder, digests)
    sealed = running.encryption and SealedEvents(running.encryption, running.event_types)
    batches = EventBatches(intake, recorder, digests=digests, seal=sealed.seal if sealed else None)
    yield InngestIntake(keys, batches, recorder, lambda: running.status().ids)
    yield MachineEvents(keys, batches)


def _digests(encryption: Encryption | None) -> Digests:
    """The digests of bodies. A repeat is known after a key was set or rotated."""
    if encryption is None:
        return plain_digests
    return lambda message: (*encryption.digests(message), *plain_digests(message))


def _events(running: Running, keys: EventKeyAuth, operators: Operators) -> list[Resource]:
    lookup = RowLookup(running.outbox.intake, running.outbox.inspector)
    access = EventAccess(lookup, keys.owner, operators.includes)
    follower = running.follower
    return [
        Events(access, follower),
        EventStream(access, follower),
        OwnEvents(
            access,
            Search(running.outbox.inspector, running.outbox.positions, _OWN_SEARCH),
            running.outbox.repairs,
            runs_follow=follower.runs_follow,
        ),
    ]


def _health(settings: Settings, running: Running) -> Health:
    storage = BucketHealth(running.bucket) if running.bucket else None
    return Health(
        faults=lambda: _faults(settings, running),
        detail=lambda: {
            **_inngest(settings),
            **running.status().detail,
            **({"storage": storage.tell()} if storage else {}),
        },
        render_metrics=running.recorder.render,
        metrics_token=plain(settings.metrics_token),
    )


def _operator_page(
    settings: Settings, running: Running, authenticator: Authenticator, operators: Operators
) -> OperatorPage:
    outbox, recorder, sampler = running.outbox, running.recorder, running.sampler
    inspector, positions, scopes = outbox.inspector, outbox.positions, outbox.scopes
    paced = PacedReplays(scopes)
    desk = Desk(authenticator.user, operators, inspector, paced)
    actions = OperatorActions(outbox.repairs, recorder)
    shown_by = running.encryption if settings.show_decrypted else None
    payloads = Payloads(inspector, outbox.trail, recorder, shown_by)
    patient = Search(inspector, positions, _CHANGE_SEARCH)
    lists = Lists(desk, inspector, Search(inspector, positions), patient, payloads, scopes)
    event = EventPage(inspector, outbox.samples, payloads, desk, event_link(settings))
    changes = Changes(desk, Proposals(patient, actions), actions, paced, payloads)
    overview = Overview(
        desk,
        sampler,
        ChartSource(outbox.samples, sampler),
        scopes,
        lambda: running.status().detail.get("journal"),
    )
    return OperatorPage(overview, [*lists.routes(), *event.routes(), *changes.routes()])


def _faults(settings: Settings, running: Running) -> list[str]:
    missing = _missing_storage(settings, running)
    faults = [f"not configured: {', '.join(missing)}"] if missing else []
    status = running.status()
    found = [*faults, status.failure, *status.faults, *running.supervisor.faults]
    return list(dict.fromkeys(fault for fault in found if fault))


def _missing_storage(settings: Settings, running: Running) -> list[str]:
    """The variables that documents lack. With event keys and no bucket it serves machines only."""
    has_bucket = settings.s3_bucket or (settings.s3_region and not settings.journal)
    machines_only = settings.event_keys and not has_bucket
    needs_documents = any(one.document for one in running.event_types) and not machines_only
    return settings.missing_storage if needs_documents else []


def _inngest(settings: Settings) -> dict[str, object]:
    confirmation = str(confirmation_mode(settings))
    return {"inngest": destination(settings).value, "confirmation": confirmation}


def _sign_in_path(settings: Settings) -> str | None:
    """The path of the sign-in of people, None where only the front end has one."""
    if settings.oidc_issuer:
        return LOGIN
    return None if settings.production else "/auth/dev-login"


def _let_go(follower: EventFollower) -> Callable[[web.Application], Awaitable[None]]:
    async def close(app: web.Application) -> None:
        del app
        follower.close()

    return close


async def _nothing(document_name: str) -> Mapping[str, object]:
    del document_name
    return {}
