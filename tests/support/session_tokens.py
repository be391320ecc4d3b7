"""Session tokens as next-auth 4 and Auth.js 5 make them, made here, and readers of them."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from joserfc.jwe import JWERegistry, encrypt_compact
from joserfc.jwk import OctKey

from inngest_outbox.identity.cookies import cookie_header, parse_cookies
from inngest_outbox.identity.nextauth import AUTH_JS_5, NEXT_AUTH_4, NextAuthReader, _derive_key
from inngest_outbox.identity.user import FoundUser, User

NOW = 1_800_000_000
SECRET = "0123456789abcdef0123456789abcdef"
FLAVOURS = {"v4": NEXT_AUTH_4, "v5": AUTH_JS_5}
ADA = {"sub": "user-123", "name": "Ada", "email": "ada@example.test", "exp": NOW + 60}
EACH = pytest.mark.parametrize("version", ["v4", "v5"])


def clock() -> float:
    return NOW


def reader(version: str, secret=SECRET) -> NextAuthReader:
    return NextAuthReader(
        FLAVOURS[version], [secret] if isinstance(secret, str) else secret, clock=clock
    )


def request_with(cookies: dict[str, str], **headers: str) -> web.Request:
    pairs = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return make_mocked_request("GET", "/", headers={"Cookie": pairs, **headers})


def found_by(reader: NextAuthReader, request: web.Request) -> FoundUser | None:
    """What the reader finds in a request: in its cookies, else in its bearer token."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    found = reader.from_cookies(parse_cookies(cookie_header(request)))
    return found or (reader.from_bearer(bearer) if scheme == "Bearer" else None)


def user(found: FoundUser | None) -> User | None:
    return found and found.user


def make(
    version: str, plain: bytes, *, cookie: str | None = None, secret: str = SECRET, **header
) -> str:
    flavour = FLAVOURS[version]
    key = _derive_key(flavour, secret, cookie or flavour.cookie)
    whole = {"alg": "dir", "enc": flavour.encryption, **header}
    if version == "v5":
        whole.setdefault("kid", key.kid)
    secret_key = key.key
    if whole["enc"] == "A128GCM":
        secret_key = OctKey.import_key(secret_key.raw_value[:16])
    algorithms = JWERegistry(algorithms=[whole["alg"], whole["enc"], "DEF"])
    return encrypt_compact(whole, plain, secret_key, registry=algorithms)


def made(version: str, **claims) -> str:
    present = {name: value for name, value in {**ADA, **claims}.items() if value is not ...}
    return make(version, json.dumps(present).encode())


def load(version: str, token: str) -> User | None:
    return user(found_by(reader(version), request_with({FLAVOURS[version].cookie: token})))
