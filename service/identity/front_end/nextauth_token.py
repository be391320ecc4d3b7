"""Session tokens of next-auth 4 and Auth.js 5: their encryption and their claims.

A token counts only when it is encrypted exactly as its version does, under one of the secrets. Keys
are derived once, when a decoder is made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry, decrypt_compact
from joserfc.jwk import OctKey

from service.identity.cookies import secure_cookie_name
from service.identity.user import AUTH_JS_ISSUER, NEXT_AUTH_ISSUER

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
        return _header_decoder.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
