"""Session cookies of next-auth 4 and Auth.js 5, read and never written.

A token counts only when it is encrypted in exactly the way of its version, under one of the
secrets, and not expired; anything else is no session, never an error. Keys are derived when a
reader is made. These tokens can't be revoked before they expire.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import unquote

import msgspec
from aiohttp import hdrs, web
from aiohttp_session import Session
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry, decrypt_compact
from joserfc.jwk import OctKey

from service.identity.user import user_from_claims

_TOLERANCE_SECONDS = 15
_MAX_TOKEN_CHARS = 32 * 1024
_MAX_CHUNKS = 16
_LAST_SECOND = 2**53
# A `dir` token has no encrypted key: its second part is empty.
_TOKEN = re.compile(r"([\w-]{1,1024})\.\.[\w-]{1,64}\.[\w-]+\.[\w-]{1,64}", re.ASCII)


class Flavour(msgspec.Struct, frozen=True, gc=False):
    """What tells one version from the other. `info` may name the cookie."""

    cookie: str
    encryption: str
    key_bytes: int
    info: str
    salted_by_cookie: bool

    @property
    def cookie_names(self) -> tuple[str, str]:
        """The session cookie's names, the one for https first."""
        return f"__Secure-{self.cookie}", self.cookie


NEXT_AUTH_4 = Flavour(
    cookie="next-auth.session-token",
    encryption="A256GCM",
    key_bytes=32,
    info="NextAuth.js Generated Encryption Key",
    salted_by_cookie=False,
)
AUTH_JS_5 = Flavour(
    cookie="authjs.session-token",
    encryption="A256CBC-HS512",
    key_bytes=64,
    info="Auth.js Generated Encryption Key ({cookie})",
    salted_by_cookie=True,
)


class _Header(msgspec.Struct, frozen=True, gc=False):
    alg: str
    enc: str
    kid: str | None = None


class _Key(msgspec.Struct, frozen=True, gc=False):
    kid: str
    key: OctKey


_header_decoder = msgspec.json.Decoder(_Header)


class NextAuthReader:
    """Reads the sessions of one flavour, for secrets in the order in which they are tried."""

    def __init__(
        self, flavour: Flavour, secrets: Sequence[str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._flavour = flavour
        self._clock = clock
        self._registry = JWERegistry(algorithms=["dir", flavour.encryption])
        self._keys = {
            name: tuple(_derive_key(flavour, secret, name) for secret in secrets)
            for name in flavour.cookie_names
        }

    def load(self, request: web.Request) -> Session | None:
        """The session of the request's cookies, else of its bearer token, else None."""
        for name, token in self._tokens(request):
            claims = self._claims(name, token)
            user = claims and user_from_claims(claims, id_claims=("id", "sub"))
            good_until = claims and self._good_until(claims)
            if user and good_until:
                held = {"user": user, "good_until": good_until}
                return Session("next-auth", data={"session": held}, new=False)
        return None

    def clear(self, request: web.Request, response: web.StreamResponse) -> None:
        """Remove the session cookies that the request brought, chunks included."""
        for sent in request.cookies:
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

    def _tokens(self, request: web.Request) -> Iterator[tuple[str, str]]:
        for name in self._flavour.cookie_names:
            token = request.cookies.get(name) or _join_chunks(request.cookies, name)
            if token:
                yield name, token
        scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme == "Bearer" and len(bearer) <= _MAX_TOKEN_CHARS:
            for name in self._flavour.cookie_names:
                yield name, unquote(bearer)

    def _claims(self, cookie_name: str, token: str) -> dict[str, object] | None:
        form = _TOKEN.fullmatch(token) if len(token) <= _MAX_TOKEN_CHARS else None
        header = form and _decode_header(form.group(1))
        if not header or (header.alg, header.enc) != ("dir", self._flavour.encryption):
            return None
        for key in self._candidates(cookie_name, header.kid):
            claims = self._decrypt(token, key)
            if claims is not None:
                return claims
        return None

    def _candidates(self, cookie_name: str, kid: str | None) -> Sequence[OctKey]:
        keys = self._keys[cookie_name]
        if kid is not None:
            return [found.key for found in keys if found.kid == kid]
        return [found.key for found in keys]

    def _decrypt(self, token: str, key: OctKey) -> dict[str, object] | None:
        try:
            plain = decrypt_compact(token, key, registry=self._registry).plaintext
            claims = json.loads(plain or b"")
        except (JoseError, ValueError, RecursionError):
            return None
        return claims if isinstance(claims, dict) else None

    def _good_until(self, claims: dict[str, object]) -> float | None:
        expires, starts = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
        if expires is None or starts is None:
            return None
        good_until, now = expires + _TOLERANCE_SECONDS, self._clock()
        return good_until if starts - _TOLERANCE_SECONDS <= now < good_until else None


def next_auth_readers(
    *, nextauth_secret: str | None, auth_secrets: Sequence[str]
) -> tuple[NextAuthReader, ...]:
    """A reader of each flavour in the fixed order; none without a secret.

    `auth_secrets` are AUTH_SECRET_3, _2, _1, then AUTH_SECRET's. As in the front ends themselves,
    next-auth 4 prefers NEXTAUTH_SECRET, Auth.js 5 prefers AUTH_SECRET, and the other one stands in.
    """
    own = (nextauth_secret,) if nextauth_secret else ()
    v4, v5 = own or tuple(auth_secrets), tuple(auth_secrets) or own
    return (NextAuthReader(NEXT_AUTH_4, v4), NextAuthReader(AUTH_JS_5, v5)) if v4 else ()


def _derive_key(flavour: Flavour, secret: str, cookie_name: str) -> _Key:
    raw = HKDF(
        hashes.SHA256(),
        length=flavour.key_bytes,
        salt=cookie_name.encode() if flavour.salted_by_cookie else b"",
        info=flavour.info.format(cookie=cookie_name).encode(),
    ).derive(secret.encode())
    thumbprint = hashlib.new(
        f"sha{flavour.key_bytes * 8}", f'{{"k":"{_base64url(raw)}","kty":"oct"}}'.encode()
    )
    return _Key(_base64url(thumbprint.digest()), OctKey.import_key(raw))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _join_chunks(cookies: Mapping[str, str], name: str) -> str:
    chunks: list[str] = []
    while len(chunks) < _MAX_CHUNKS and (chunk := cookies.get(f"{name}.{len(chunks)}")):
        chunks.append(chunk)
    return "".join(chunks)


def _decode_header(part: str) -> _Header | None:
    try:
        return _header_decoder.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _LAST_SECOND else None
