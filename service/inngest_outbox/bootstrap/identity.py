"""Sessions, keys and the identity provider, made from the settings."""

from __future__ import annotations

import contextlib
import secrets as random_secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import parse_event_keys, plain
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.identity.bearer_tokens import BearerTokens
from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.front_end_sessions import FrontEndSessions
from inngest_outbox.identity.jwks import Jwks
from inngest_outbox.identity.nextauth import (
    AUTH_JS_5,
    NEXT_AUTH_4,
    NextAuthReader,
    next_auth_readers,
)
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.oidc_provider import OidcProvider
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.identity.session_revision import SessionRevisions
from inngest_outbox.identity.sessions import RemoteReader, Sessions
from inngest_outbox.identity.sign_in_attempt import AttemptCookie
from inngest_outbox.identity.user import SHARED_ISSUER, EventKeys
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.signin.oidc import OidcResource

_SECRET_FILE = "development-session-secret"  # noqa: S105  (a file's name)


def session_secrets(settings: Settings) -> list[str]:
    """The secrets of the service's own cookies, the signing one first.

    In development one is made when none is set. Raises ConfigurationError when that fails.
    """
    given = [secret.get_secret_value() for secret in settings.session_secret]
    return given or [_development_secret(settings)]


def make_sessions(
    settings: Settings, secrets: list[str], scopes: Scopes, http: aiohttp.ClientSession
) -> Sessions:
    """All kinds of session that the settings allow, in their fixed order."""
    own = CookieSessionStorage(secrets, secure=settings.production)
    return Sessions(
        own,
        _readers(settings),
        remote=_remote_readers(settings, http),
        revisions=SessionRevisions(scopes),
    )


def make_event_keys(settings: Settings) -> EventKeys:
    """The keys that machines post events with."""
    return EventKeys(parse_event_keys(one.get_secret_value() for one in settings.event_keys))


def user_issuer(settings: Settings, issuer: str) -> str:
    """The issuer of the ids of `issuer`'s users: itself, or the one that all share."""
    return SHARED_ISSUER if settings.user_ids_shared else issuer


def oidc_resource(
    settings: Settings,
    secrets: list[str],
    sessions: Sessions,
    proxies: Proxies,
    http: aiohttp.ClientSession,
) -> OidcResource | None:
    """The sign-in at the identity provider, None when there is none."""
    if not settings.oidc_issuer or not settings.oidc_client_id:
        return None
    secure = settings.production
    provider = OidcProvider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        plain(settings.oidc_client_secret),
        http,
    )
    cookie = AttemptCookie(secrets, secure=secure)
    sign_in = OidcSignIn(
        provider, user_issuer=user_issuer(settings, settings.oidc_issuer.rstrip("/"))
    )
    return OidcResource(sign_in, sessions, cookie, secure=secure, proxies=proxies)


def _readers(settings: Settings) -> Sequence[NextAuthReader]:
    return next_auth_readers(
        nextauth_secret=plain(settings.nextauth_secret),
        auth_secrets=[one.get_secret_value() for one in settings.auth_js_secrets],
        secure=settings.production,
        issuer=SHARED_ISSUER if settings.user_ids_shared else None,
    )


def _remote_readers(settings: Settings, http: aiohttp.ClientSession) -> Iterator[RemoteReader]:
    if settings.jwt_issuer:
        issuer = settings.jwt_issuer
        yield BearerTokens(
            Jwks(issuer, http, jwks_url=settings.jwt_jwks_url),
            issuer=issuer,
            audience=settings.jwt_audience,
            user_issuer=user_issuer(settings, issuer.rstrip("/")),
            id_claim=settings.jwt_id_claim,
        )
    if settings.nextauth_url:
        yield FrontEndSessions(
            settings.nextauth_url,
            http,
            issuers={
                name: user_issuer(settings, flavour.issuer)
                for flavour in (NEXT_AUTH_4, AUTH_JS_5)
                for name in flavour.cookie_names[: 1 if settings.production else None]
            },
        )


def _development_secret(settings: Settings) -> str:
    """A secret made once for this folder, so that users stay signed in over a restart."""
    path = Path(settings.sqlite_path or "data/outbox.db").with_name(_SECRET_FILE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Linked when whole: another process never reads a part of it.
            with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="ascii") as made:
                made.write(random_secrets.token_urlsafe(32))
                made.flush()
                with contextlib.suppress(FileExistsError):
                    path.hardlink_to(made.name)
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigurationError([f"SESSION_SECRET: none is set, and {path}: {error}"]) from error
