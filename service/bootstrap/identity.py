"""Sessions, keys and the identity provider, made from the settings."""

from __future__ import annotations

import contextlib
import secrets as random_secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from service.config.settings import Settings
from service.config.values import parse_event_keys, plain
from service.errors import ConfigurationError
from service.identity.bearer_tokens import BearerTokens
from service.identity.cookie_session import CookieSessionStorage
from service.identity.front_end_sessions import FrontEndSessions
from service.identity.jwks import Jwks
from service.identity.nextauth import AUTH_JS_5, NEXT_AUTH_4, NextAuthReader, next_auth_readers
from service.identity.oidc import OidcSignIn
from service.identity.oidc_provider import OidcProvider
from service.identity.scopes import Scopes
from service.identity.session_revision import SessionRevisions
from service.identity.sessions import RemoteReader, Sessions
from service.identity.sign_in_attempt import AttemptCookie
from service.identity.user import SHARED_ISSUER, EventKeys
from service.web.server.proxies import Proxies
from service.web.signin.oidc import OidcResource

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
