"""The operators' page of a running service: over HTTP, and in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from service.fake_inngest.server import FakeInngest
from service.identity.user import User
from service.outbox.event import Event, encode_event
from service.outbox.model import Dead, Settlement
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.browser import Browser, BrowserError, chromium
from tests.support.fleet import Process, environment, running
from tests.support.storage import claim, eventually

OPERATOR = "ops@example.com"
HOSTILE = "<script>alert(1)</script>"
PATIENCE_SECONDS = 20.0


class Data(msgspec.Struct):
    documentName: str  # noqa: N815


@contextlib.asynccontextmanager
async def served(path: Path, api: FakeInngest) -> AsyncIterator[Process]:
    settings = environment(f"sqlite:///{path}", api.url, OPERATOR_EMAILS=OPERATOR)
    async with running("serve", environment=settings) as service:
        yield service


@pytest.fixture
async def dead_ids(tmp_path: Path) -> list[str]:
    """Two dead events, one of them with hostile words, in the outbox that will be served."""
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, max_pending=99, max_pending_per_user=99) as outbox:
        events = [deliverable("u-1"), deliverable(HOSTILE)]
        for each in events:
            await outbox.intake.append(each)
        batch = await claim(outbox)
        deads = [Dead(entry.seq, 3, "rejected", f"no {HOSTILE}") for entry in batch.entries]
        await outbox.queue.settle(Settlement(batch.claim, dead=deads))
    return [each.id for each in events]


@pytest.fixture
async def service(
    tmp_path: Path, dead_ids: list[str], inngest_api: FakeInngest
) -> AsyncIterator[Process]:
    del dead_ids
    async with served(tmp_path / "outbox.db", inngest_api) as process:
        yield process


def deliverable(user_id: str) -> Event:
    data = Data(documentName="example")
    return encode_event("documents/aws.index", data, User("dev", user_id), int(time.time() * 1000))


@contextlib.asynccontextmanager
async def signed_in(url: str, email: str) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        body = {"email": email, "id": email.partition("@")[0]}
        async with session.post(f"{url}/auth/dev-login", json=body) as answer:
            assert answer.status == 200
        yield session


async def sign_in_browser(browser: Browser, url: str) -> None:
    await browser.open(f"{url}/healthz")
    async with signed_in(url, OPERATOR) as session:
        for cookie in session.cookie_jar:
            await browser.add_cookie(cookie.key, cookie.value)


async def test_only_operators_see_it(service: Process) -> None:
    async with aiohttp.ClientSession() as nobody:
        for path in ("/outbox", "/outbox/live"):
            async with nobody.get(service.url + path) as answer:
                assert answer.status == 401
    async with signed_in(service.url, "ada@example.com") as other:
        for path in ("/outbox", "/outbox/live"):
            async with other.get(service.url + path) as answer:
                assert answer.status == 403
        async with other.post(f"{service.url}/outbox/discard", data={"id": "x"}) as answer:
            assert answer.status == 403


async def test_another_site_can_change_nothing(service: Process, dead_ids: list[str]) -> None:
    form = {"id": dead_ids[0], "confirmed": "yes"}
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    async with signed_in(service.url, OPERATOR) as session:
        for action in ("replay", "discard"):
            async with session.post(
                f"{service.url}/outbox/{action}", data=form, headers=headers
            ) as answer:
                assert answer.status == 403
        async with session.get(f"{service.url}/outbox") as answer:
            assert dead_ids[0] in await answer.text()


async def test_a_change_is_confirmed_first_and_hostile_words_stay_words(
    service: Process, dead_ids: list[str], inngest_api: FakeInngest
) -> None:
    first, second = dead_ids
    async with signed_in(service.url, OPERATOR) as session:
        async with session.get(f"{service.url}/outbox") as answer:
            text = await answer.text()
            assert answer.status == 200
            assert HOSTILE not in text
            assert "&lt;script&gt;alert(1)" in text
            assert "form-action 'self'" in answer.headers["Content-Security-Policy"]
        async with session.post(f"{service.url}/outbox/replay", data={"id": first}) as answer:
            assert f"Replay event {first}?" in await answer.text()
        assert inngest_api.ledger.times(first) == 0
        form = {"id": first, "confirmed": "yes"}
        async with session.post(f"{service.url}/outbox/replay", data=form) as answer:
            assert "Event replayed" in await answer.text()

        async def arrived() -> bool:
            return inngest_api.ledger.times(first) == 1

        await eventually(arrived)
        async with session.post(f"{service.url}/outbox/replay", data=form) as answer:
            assert answer.status == 404
        form = {"id": second, "confirmed": "yes"}
        async with session.post(f"{service.url}/outbox/discard", data=form) as answer:
            assert "Event discarded" in await answer.text()
        async with session.get(f"{service.url}/outbox") as answer:
            assert "<p>None.</p>" in await answer.text()
    assert inngest_api.ledger.times(second) == 0


async def test_an_open_live_stream_does_not_hold_up_the_stop(service: Process) -> None:
    async with (
        signed_in(service.url, OPERATOR) as session,
        asyncio.timeout(PATIENCE_SECONDS),
        session.get(f"{service.url}/outbox/live") as stream,
    ):
        assert stream.content_type == "text/event-stream"
        assert (await stream.content.readline()) == b"event: figures\n"
        # The stop gives requests 15 s; a stream must use none of it.
        async with asyncio.timeout(10):
            assert await service.stop() == 0
    assert "Traceback" not in "".join(service.lines)


async def test_in_a_browser_it_is_live_and_works_by_keyboard(
    service: Process, dead_ids: list[str], inngest_api: FakeInngest, tmp_path: Path
) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox")
        assert await browser.title() == "Outbox: 2 dead"
        await browser.shows("#connection", "Live.")
        assert await browser.role("#live svg") == (
            "image",
            "Waiting over the last hour: 0 now, 0 at most.",
        )
        name = await browser.role("form[action='/outbox/replay'] button")
        assert name == ("button", f"Replay event {dead_ids[1]}")
        # By keyboard alone: the skip link, then the first button after the heading.
        await browser.run("document.querySelector('a.skip').focus()")
        await browser.press("\ue007")
        assert await browser.run("return document.activeElement.id") == "dead-heading"
        await browser.run(
            "document.querySelector(\"form[action='/outbox/replay'] button\").focus()"
        )
        if picture := os.environ.get("OPERATOR_PAGE_PICTURE"):
            await browser.screenshot(Path(picture))
        await browser.press("\ue007")
        await browser.shows("h1", f"Replay event {dead_ids[1]}?")
        await browser.click("button")
        await browser.shows(".notice", "Event replayed")

        async def arrived() -> bool:
            return inngest_api.ledger.times(dead_ids[1]) == 1

        await eventually(arrived)
        await browser.shows("#live dl", "Delivered\n1")
        assert await browser.complaints() == []


async def test_in_a_browser_without_javascript_it_is_read_and_repaired(
    service: Process, dead_ids: list[str], tmp_path: Path
) -> None:
    async with chromium(tmp_path / "profile", javascript=False) as browser:
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox")
        assert "reload for newer" in await browser.text("#connection")
        assert dead_ids[0] in await browser.text("table")
        await browser.click("form[action='/outbox/discard'] button")
        await browser.shows("h1", f"Discard event {dead_ids[1]}?")
        await browser.click("button")
        await browser.shows(".notice", "Event discarded")
        with pytest.raises(BrowserError):
            await browser.text(f"form input[value='{dead_ids[1]}']")


async def test_a_form_that_is_none_of_the_pages_names_no_event(service: Process) -> None:
    forms = [
        ("multipart/form-data", b"id=x"),
        ("multipart/form-data; boundary=a", b"--b"),
        ("application/x-www-form-urlencoded; charset=none", b"id=x"),
        ("application/x-www-form-urlencoded", b"id=%ff%00"),
        ("text/plain", b"\xff"),
    ]
    async with signed_in(service.url, OPERATOR) as session:
        for content_type, body in forms:
            headers = {"Content-Type": content_type}
            place = f"{service.url}/outbox/discard"
            async with session.post(place, data=body, headers=headers) as answer:
                assert answer.status == 404
                assert (await answer.json())["code"] == "not_found"


async def test_a_head_of_the_live_figures_is_refused(service: Process) -> None:
    async with (
        signed_in(service.url, OPERATOR) as session,
        session.head(f"{service.url}/outbox/live") as answer,
    ):
        assert answer.status == 405
