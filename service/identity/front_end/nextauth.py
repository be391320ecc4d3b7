"""Reads the sessions of a next-auth 4 or Auth.js 5 front end.

Anything but an authentic token that has not expired counts as no session, never as an error. These
tokens can't be revoked before they expire.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from aiohttp import web

from service.identity.front_end.nextauth_token import (
    AUTH_JS_5,
    MAX_TOKEN_CHARS,
    NEXT_AUTH_4,
    Claims,
    Flavour,
    TokenDecoder,
)
from service.identity.user import FoundUser, seconds_of, user_from_claims

_TOLERANCE_SECONDS = 15
_MAX_CHUNKS = 16


class NextAuthReader:
    """Reads the sessions of one flavour.

    With `secure`, only cookies count whose name is bound to https. `issuer` is the issuer of the
    ids in the tokens, None for the flavour's own.
    """

    def __init__(
        self,
        flavour: Flavour,
        secrets: Sequence[str],
        *,
        secure: bool = False,
        issuer: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._flavour = flavour
        self._issuer = issuer or flavour.issuer
        self._cookie_names = flavour.cookie_names[:1] if secure else flavour.cookie_names
        self._decoder = TokenDecoder(flavour, secrets)
        self._clock = clock

    def from_cookies(self, cookies: Mapping[str, str]) -> FoundUser | None:
        """The user of the session cookie, whole or in chunks; None without one."""
        for name in self._cookie_names:
            token = cookies.get(name) or _join_chunks(cookies, name)
            if token and (found := self._found(self._decoder.claims(name, token))):
                return found
        return None

    def from_bearer(self, token: str) -> FoundUser | None:
        """The user of a bearer token, which front ends send percent-encoded; None without one."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        for name in self._flavour.cookie_names:
            if found := self._found(self._decoder.claims(name, unquote(token))):
                return found
        return None

    def clear(self, cookies: Mapping[str, str], response: web.StreamResponse) -> None:
        """Remove the session cookies among `cookies`, chunks included."""
        for sent in cookies:
            name, _, chunk = sent.partition(f"{self._flavour.cookie}.")
            whole = sent in self._flavour.cookie_names
            if whole or (name in ("", "__Secure-") and chunk.isdecimal()):
                response.del_cookie(
                    sent,
                    path="/",
                    secure=sent.startswith("__Secure-"),
                    httponly=True,
                    samesite="Lax",
                )

    def _found(self, claims: Claims | None) -> FoundUser | None:
        if claims is None:
            return None
        user = user_from_claims(claims, issuer=self._issuer, id_claims=("id", "sub"))
        good_until = self._good_until(claims)
        return FoundUser(user, good_until) if user and good_until else None

    def _good_until(self, claims: Claims) -> float | None:
        expires, starts = seconds_of(claims, "exp"), seconds_of(claims, "nbf", 0)
        if expires is None or starts is None:
            return None
        good_until, now = expires + _TOLERANCE_SECONDS, self._clock()
        return good_until if starts - _TOLERANCE_SECONDS <= now < good_until else None


def next_auth_readers(
    *,
    nextauth_secret: str | None,
    auth_secrets: Sequence[str],
    secure: bool = False,
    issuer: str | None = None,
) -> tuple[NextAuthReader, ...]:
    """A reader of each flavour in the fixed order; none without a secret.

    `auth_secrets` are AUTH_SECRET_3, _2, _1, then AUTH_SECRET's. As in the npm packages,
    next-auth 4 prefers NEXTAUTH_SECRET and Auth.js 5 prefers AUTH_SECRET; each falls back to the
    other one.
    """
    own = (nextauth_secret,) if nextauth_secret else ()
    secrets = own or tuple(auth_secrets), tuple(auth_secrets) or own
    return tuple(
        NextAuthReader(flavour, given, secure=secure, issuer=issuer)
        for flavour, given in zip((NEXT_AUTH_4, AUTH_JS_5), secrets, strict=True)
        if given
    )


def _join_chunks(cookies: Mapping[str, str], name: str) -> str:
    chunks: list[str] = []
    while len(chunks) < _MAX_CHUNKS and (chunk := cookies.get(f"{name}.{len(chunks)}")):
        chunks.append(chunk)
    return "".join(chunks)
