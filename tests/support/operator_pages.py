"""A service with dead events, and operators who look at its pages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import Event, encode_event
from inngest_outbox.outbox.model import Dead, Settlement
from tests.support.browser import Browser
from tests.support.fleet import environment
from tests.support.judged_answer import JudgedAnswer
from tests.support.service_here import ServiceHere, service_here
from tests.support.storage import Outbox, Storage, claim

OPERATOR = "ops@example.com"
HOSTILE = "<script>alert(1)</script>\u202ereversed"
FORM = "application/x-www-form-urlencoded"


class Data(msgspec.Struct):
    documentName: str  # noqa: N815


def deliverable(user_id: str, name: str = "documents/aws.index") -> Event:
    """An event that the fake Inngest takes."""
    data = Data(documentName="a secret document")
    return encode_event(name, data, User("dev", user_id), int(time.time() * 1000))


async def bury(outbox: Outbox, *events: Event, reason: str = "rejected") -> list[str]:
    """Append these events and settle them as dead; returns their ids."""
    for each in events:
        await outbox.intake.append(each)
    batch = await claim(outbox)
    dead = [Dead(entry.seq, 3, reason, f"no {HOSTILE}") for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    return [each.id for each in events]


def settings(storage: Storage, api: FakeInngest) -> dict[str, str]:
    """Of a service on this storage, which delivers to `api` and gives up no send."""
    return environment(storage.url, api.url, OPERATOR_EMAILS=OPERATOR, OUTBOX_SEND_TIMEOUT="60s")


@contextlib.asynccontextmanager
async def served(storage: Storage, api: FakeInngest) -> AsyncIterator[ServiceHere]:
    """A service with these settings."""
    async with service_here(settings(storage, api)) as service:
        yield service


@contextlib.asynccontextmanager
async def signed_in(url: str, email: str = OPERATOR) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with this user's session."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, response_class=JudgedAnswer) as session:
        body = {"email": email, "id": email.partition("@")[0]}
        async with session.post(f"{url}/auth/dev-login", json=body) as answer:
            assert answer.status == 200
        yield session


async def sign_in_browser(browser: Browser, url: str) -> None:
    """Give the browser the operator's session."""
    await browser.open(f"{url}/healthz")
    async with signed_in(url) as session:
        for cookie in session.cookie_jar:
            await browser.add_cookie(cookie.key, cookie.value)


class Visitor:
    """An operator without a browser."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def see(self, path: str) -> str:
        """The page at `path`."""
        async with self._session.get(self._url + path) as answer:
            page = await answer.text()
        assert answer.status == 200, page
        return page

    async def send(self, path: str, *fields: tuple[str, str], expected: int = 200) -> str:
        """What comes after posting a form, redirects followed."""
        data = aiohttp.FormData(fields)
        async with self._session.post(self._url + path, data=data()) as answer:
            assert answer.status == expected, await answer.text()
            return await answer.text()


@contextlib.asynccontextmanager
async def visitor(url: str) -> AsyncIterator[Visitor]:
    """An operator's visits to the service at `url`."""
    async with signed_in(url) as session:
        yield Visitor(session, url)
