"""The cost of finding a request's user, by kind of session: prints a table.

Cold is a Cookie header not seen before (parsed and decrypted), remembered one that was.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from joserfc.jwe import JWERegistry, encrypt_compact

from inngest_outbox.app_settings.app_settings import AppSettings
from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.nextauth import AUTH_JS_5, NEXT_AUTH_4, Flavour, _derive_key
from inngest_outbox.identity.nextauth import next_auth_readers as readers
from inngest_outbox.identity.session_revision import SessionRevisions
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.user import User
from inngest_outbox.web.server.cross_site import CrossSite

SECRET = "0123456789abcdef0123456789abcdef"
ADA = User("dev", "u-1", "ada@example.com", "Ada", "org-1")
ROUNDS, REQUESTS = 7, 2000


def token(flavour: Flavour, groups: int = 0) -> str:
    key = _derive_key(flavour, SECRET, flavour.cookie)
    header = {"alg": "dir", "enc": flavour.encryption, "kid": key.kid}
    if flavour is NEXT_AUTH_4:
        del header["kid"]
    claims = {"sub": "u-1", "name": "Ada", "email": "ada@example.com", "exp": time.time() + 1e6}
    claims["groups"] = [f"group-{n}" for n in range(groups)]
    registry = JWERegistry(algorithms=["dir", flavour.encryption])
    return encrypt_compact(header, json.dumps(claims).encode(), key.key, registry=registry)


def chunked(flavour: Flavour, whole: str) -> str:
    size = 3933
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    return "; ".join(f"{flavour.cookie}.{index}={part}" for index, part in enumerate(parts))


async def requests(sessions: Sessions, cookie: str) -> list[web.Request]:
    """Requests as the session middleware hands them on."""
    made: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        made.append(request)
        return web.Response()

    middleware = sessions.middleware()
    headers = {"Host": "localhost", "Cookie": cookie} if cookie else {"Host": "localhost"}
    for _ in range(REQUESTS):
        await middleware(make_mocked_request("POST", "/api/route", headers=headers), handler)
    return made


async def measure(sessions: Sessions, cookie: str, *, cold: bool) -> float:
    """Microseconds for one look at the user, the median of the rounds."""
    rounds = []
    for _ in range(ROUNDS):
        made = await requests(sessions, cookie)
        if not cold:
            await sessions.user(made.pop())
        start = time.perf_counter()
        for request in made:
            if cold:
                sessions._remembered.clear()
            await sessions.user(request)
        rounds.append((time.perf_counter() - start) / len(made) * 1e6)
    return statistics.median(rounds)


class NoScopes:
    scope_revision = 0

    async def load_scope(self, *_):
        return None

    async def save_scope(self, *_):
        return None


async def main() -> None:
    own = CookieSessionStorage([SECRET], secure=False)
    sessions = Sessions(
        own,
        readers(nextauth_secret=SECRET, auth_secrets=()),
        revisions=SessionRevisions(NoScopes()),
    )
    v4, v5 = NEXT_AUTH_4, AUTH_JS_5
    cookies = {
        "none": "",
        "own": f"{own.cookie_name}={own.seal(own.begin(ADA, ''))}",
        "next-auth 4": f"{v4.cookie}={token(v4)}",
        "next-auth 4, 2 chunks": chunked(v4, token(v4, groups=350)),
        "Auth.js 5": f"{v5.cookie}={token(v5)}",
        "Auth.js 5, 2 chunks": chunked(v5, token(v5, groups=350)),
        "forged next-auth 4": f"{v4.cookie}={token(v4)[:-4]}AAAA",
    }
    print(f"{'session':<24}{'cookie bytes':>14}{'cold µs':>10}{'remembered µs':>16}")
    for name, cookie in cookies.items():
        cold = await measure(sessions, cookie, cold=True)
        warm = await measure(sessions, cookie, cold=False)
        print(f"{name:<24}{len(cookie):>14}{cold:>10.1f}{warm:>16.2f}")
    await others(cookies["own"])


async def others(cookie: str) -> None:
    headers = {"Host": "localhost:3000", "Cookie": cookie, "Origin": "http://localhost:3000"}
    request = make_mocked_request("POST", "/", headers=headers)
    check, settings = CrossSite([]).check, AppSettings(NoScopes(), {"a": 1})
    start = time.perf_counter()
    for _ in range(REQUESTS * ROUNDS):
        check(request)
    spent = (time.perf_counter() - start) / REQUESTS / ROUNDS * 1e6
    print(f"{'cross-site check':<48}{spent:>16.2f}")
    start = time.perf_counter()
    for _ in range(REQUESTS * ROUNDS):
        await settings.effective(ADA)
    spent = (time.perf_counter() - start) / REQUESTS / ROUNDS * 1e6
    print(f"{'application settings, unchanged':<48}{spent:>16.2f}")


if __name__ == "__main__":
    asyncio.run(main())
