"""A page of a sibling subdomain in a real browser plants no session at the service.

`evil.app.localhost` may set cookies for `app.localhost`, as a sibling subdomain anywhere may for
its parent. Chromium takes Secure cookies from localhost names without https.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.identity.cookie_session import CookieSessionStorage, SignedIn
from inngest_outbox.identity.user import User
from tests.support.browser import Browser, chromium
from tests.support.fleet import environment, running
from tests.support.front_end import SECRET
from tests.support.session_tokens import FLAVOURS, make

pytestmark = pytest.mark.slow
OWN_SECRET = "a-secret-of-the-tests-only"
NAME = "__Host-outbox_session"
FRONT_END = "__Secure-next-auth.session-token"
PLANTS = [
    "theme=x {name}={value}",
    "theme=x\u00a0{name}={value}",
    "\u3000{name}={value}",
    "{name}\u2003={value}",
    'theme="x {name}={value}"',
    "theme=x,{name}={value}",
    "={name}={value}",
]


def own_cookie(user_id: str) -> str:
    storage = CookieSessionStorage([OWN_SECRET], secure=True)
    return storage.seal(SignedIn(User("dev", user_id), int(time.time())))


def front_end_cookie(user_id: str) -> str:
    claims = {"sub": user_id, "exp": time.time() + 3600}
    flavour = FLAVOURS["v4"]
    return make("v4", json.dumps(claims).encode(), cookie=flavour.cookie, secret=SECRET)


@pytest.fixture
async def port(tmp_path: Path, inngest_api: FakeInngest) -> AsyncIterator[str]:
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}",
        inngest_api.url,
        APP_ENV="production",
        SESSION_SECRET=OWN_SECRET,
        NEXTAUTH_SECRET=SECRET,
    )
    ready = r"^Listening on (http://\S+) in production$"
    async with running("serve", environment=settings, ready=ready) as service:
        yield service.url.rpartition(":")[2]


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as browser:
        yield browser


async def plant(browser: Browser, port: str, cookie: str) -> None:
    await browser.open(f"http://evil.app.localhost:{port}/healthz")
    whole = f"{cookie}; Domain=app.localhost; Path=/"
    await browser.run(f"document.cookie = {json.dumps(whole)}; return document.cookie")


async def who(browser: Browser, port: str) -> str | None:
    await browser.open(f"http://app.localhost:{port}/auth/session")
    user = json.loads(await browser.text("body"))["user"]
    return user and user["id"]


async def test_a_sibling_subdomain_plants_no_session(browser: Browser, port: str) -> None:
    for form in PLANTS:
        await plant(browser, port, form.format(name=NAME, value=own_cookie("attacker")))
        planted = form.format(name=FRONT_END, value=front_end_cookie("attacker"))
        await plant(browser, port, planted)
        assert await who(browser, port) is None, form
    assert "theme=" in await browser.run("return document.cookie")


async def test_a_victim_with_a_session_stays_who_they_are(browser: Browser, port: str) -> None:
    await browser.open(f"http://app.localhost:{port}/healthz")
    await browser.add_cookie(NAME, own_cookie("victim"), secure=True)
    for form in PLANTS:
        await plant(browser, port, form.format(name=NAME, value=own_cookie("attacker")))
        assert await who(browser, port) == "victim", form
