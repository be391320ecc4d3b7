"""A sign-in that a browser has started at the identity provider.

It is kept in an encrypted cookie for ten minutes, so that only the browser that started it can
finish it. A new start replaces it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web
from cryptography.fernet import InvalidToken

from inngest_outbox.identity.cookie_session import derive_fernets
from inngest_outbox.identity.cookies import cookie_header, host_cookie_name, parse_cookies

_MAX_AGE_SECONDS = 600
_MAX_CHARS = 1024
# Printable ASCII after one slash. Browsers read // and /\ as another host.
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


class SignInAttempt(msgspec.Struct, frozen=True, gc=False):
    """The words that the browser must send back, and the path of this service that follows."""

    state: str
    nonce: str
    code_verifier: str
    redirect_uri: str
    return_to: str


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(SignInAttempt)


def begin_attempt(redirect_uri: str, return_to: str) -> SignInAttempt:
    """A new attempt with new secrets. A `return_to` to another site becomes `/`."""
    return SignInAttempt(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        code_verifier=secrets.token_urlsafe(48),
        redirect_uri=redirect_uri,
        return_to=own_path(return_to),
    )


class AttemptCookie:
    """The cookie of an attempt, under the secrets of the session cookie."""

    def __init__(
        self, secrets: Sequence[str], *, secure: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._fernets = derive_fernets(secrets, "sign-in attempt")
        self._name = host_cookie_name("outbox_sign_in", secure=secure)
        self._secure = secure
        self._clock = clock

    def save(self, response: web.StreamResponse, attempt: SignInAttempt) -> None:
        """Store the attempt in the browser."""
        sealed = self._fernets[0].encrypt_at_time(_encode(attempt), int(self._clock()))
        response.set_cookie(
            self._name,
            sealed.decode(),
            max_age=_MAX_AGE_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Lax",
        )

    def load(self, request: web.Request) -> SignInAttempt | None:
        """The browser's attempt, None without an authentic one of the last ten minutes."""
        cookie = parse_cookies(cookie_header(request)).get(self._name, "")
        for fernet in self._fernets:
            with contextlib.suppress(InvalidToken, msgspec.MsgspecError, ValueError):
                opened = fernet.decrypt_at_time(cookie, _MAX_AGE_SECONDS, int(self._clock()))
                return _decoder.decode(opened)
        return None

    def clear(self, response: web.StreamResponse) -> None:
        """Remove the attempt from the browser."""
        response.del_cookie(
            self._name, path="/", secure=self._secure, httponly=True, samesite="Lax"
        )


def own_path(text: str) -> str:
    """The path that `text` names; `/` when it is not a path of this service.

    >>> own_path("/outbox"), own_path("//elsewhere.example"), own_path("https://elsewhere.example")
    ('/outbox', '/', '/')
    """
    return text if len(text) <= _MAX_CHARS and _OWN_PATH.fullmatch(text) else "/"
