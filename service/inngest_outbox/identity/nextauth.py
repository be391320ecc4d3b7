"""Reads the sessions of a next-auth 4 or Auth.js 5 front end, by their tokens.

A token counts only when it is encrypted exactly as its version does, under one of the secrets. Keys
are derived once, when a decoder is made. Anything but an authentic token that has not expired
counts as no session, never as an error. These tokens can't be revoked before they expire.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry, decrypt_compact
from joserfc.jwk import OctKey

from inngest_outbox.identity.cookies import secure_cookie_name
from inngest_outbox.identity.user import (
    AUTH_JS_ISSUER,
    NEXT_AUTH_ISSUER,
    FoundUser,
    seconds_of,
    user_from_claims,
)

_TOLERANCE_SECONDS = 15
_MAX_CHUNKS = 16
MAX_TOKEN_CHARS = 32 * 1024
# A `dir` token has no encrypted key: its second part is empty.
_TOKEN = re.compile(r"([\w-]{1,1024})\.\.[\w-]{1,64}\.[\w-]+\.[\w-]{1,64}", re.ASCII)

Claims = dict[str, object]


class Flavour(msgspec.Struct, frozen=True, gc=False):
    """The parameters of one version. `info` may contain the cookie's name."""

    issuer: str
    cookie: str
    encryption: str
    key_bytes: int
    info: str
    salted_by_cookie: bool

    @property
    def cookie_names(self) -> tuple[str, str]:
        """The names of the session cookie, the one for https first."""
        return secure_cookie_name(self.cookie), self.cookie


NEXT_AUTH_4 = Flavour(
    issuer=NEXT_AUTH_ISSUER,
    cookie="next-auth.session-token",
    encryption="A256GCM",
    key_bytes=32,
    info="NextAuth.js Generated Encryption Key",
    salted_by_cookie=False,
)
AUTH_JS_5 = Flavour(
    issuer=AUTH_JS_ISSUER,
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


class TokenDecoder:
    """Decrypts the tokens of one flavour. The secrets are tried in order."""

    def __init__(self, flavour: Flavour, secrets: Sequence[str]) -> None:
        self._encryption = flavour.encryption
        self._registry = JWERegistry(algorithms=["dir", flavour.encryption])
        self._keys = {
            name: tuple(_derive_key(flavour, secret, name) for secret in secrets)
            for name in flavour.cookie_names
        }

    def claims(self, cookie_name: str, token: str) -> Claims | None:
        """The claims of a token for `cookie_name`, None for any other text."""
        form = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_CHARS else None
        header = form and _decode_header(form.group(1))
        if not header or (header.alg, header.enc) != ("dir", self._encryption):
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

    def _decrypt(self, token: str, key: OctKey) -> Claims | None:
        try:
            plain = decrypt_compact(token, key, registry=self._registry).plaintext
            claims = json.loads(plain or b"")
        except (JoseError, ValueError, RecursionError):
            return None
        return claims if isinstance(claims, dict) else None


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


def _decode_header(part: str) -> _Header | None:
    try:
        return _header_decoder.decode(base64.urlsafe_b64decode(part + "=="))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


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
                secure = sent.startswith("__Secure-")
                response.del_cookie(sent, secure=secure, httponly=True, samesite="Lax")

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
    return tuple(
        NextAuthReader(flavour, given, secure=secure, issuer=issuer)
        for flavour, given in ((NEXT_AUTH_4, own or auth_secrets), (AUTH_JS_5, auth_secrets or own))
        if given
    )


def _join_chunks(cookies: Mapping[str, str], name: str) -> str:
    chunks: list[str] = []
    while len(chunks) < _MAX_CHUNKS and (chunk := cookies.get(f"{name}.{len(chunks)}")):
        chunks.append(chunk)
    return "".join(chunks)
