"""The service's own pages in a real browser that reaches nothing but the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.browser import Browser, chromium
from tests.support.fleet import environment, running

pytestmark = pytest.mark.slow
EVENT_TYPES = Path(__file__).parents[2] / "examples" / "event-types" / "event-types.yaml"
CHOOSE = """
const path = document.getElementById("path");
path.value = "/api/reports";
path.dispatchEvent(new Event("change"));
return document.getElementById("body").value;
"""
ENDED_AND_DEAD = """
const ended = stream.readyState;
stream.onmessage({data: '{"state": "dead", "reason": "rejected"}'});
return [ended, document.querySelector("#log li:last-child").textContent];
"""
DOUBLE_CLICK = """
let posts = 0;
const send = fetch;
window.fetch = (...given) => { posts += 1; return send(...given); };
for (const _ of [1, 2]) document.querySelector("#post button").click();
return posts;
"""
LOADED = "return performance.getEntriesByType('resource').map(one => one.name)"


@pytest.fixture
async def url(tmp_path: Path, inngest_api: FakeInngest) -> AsyncIterator[str]:
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}",
        inngest_api.url,
        OPERATOR_EMAILS="ada@example.com",
        EVENT_TYPES_FILE=str(EVENT_TYPES),
    )
    async with running("serve", environment=settings) as service:
        yield service.url


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile", reaches="127.0.0.1") as browser:
        yield browser


async def test_the_description_is_drawn_with_each_type_from_files_of_the_service(
    url: str, browser: Browser
) -> None:
    await browser.open(f"{url}/docs#/events/postFilesUploaded")
    await browser.shows("#ui", "Outbox for Inngest")
    await browser.shows("#ui", "OAS 3.1")
    await browser.shows("#ui", "/api/route")
    await browser.shows("#ui", "documentName")
    assert await browser.complaints() == []
    assert all(one.startswith((url, "data:")) for one in await browser.run(LOADED))


async def test_the_form_of_the_sign_in_sends_the_origin_that_the_page_s_policy_leaves(
    url: str, browser: Browser
) -> None:
    await browser.open(f"{url}/auth/dev-login?returnTo=/auth/session")
    await browser.fill("#email", "ada@example.com")
    await browser.click("button")
    await browser.shows("body", '"id":"ada@example.com"')


async def test_from_the_start_page_one_signs_in_posts_and_sees_the_event_delivered(
    url: str, browser: Browser
) -> None:
    await browser.open(f"{url}/")
    await browser.click("form button")
    await browser.shows("main", "Signed in as ada@example.com, an operator.")
    assert "documentName" in await browser.run("return document.getElementById('body').value")
    await browser.run("document.getElementById('body').value = '{'")
    await browser.click("#post button")
    await browser.shows("#log", "400 {")
    assert "sales" in await browser.run(CHOOSE)  # the example of the other event type
    await browser.click("#post button")
    await browser.shows("#log", "200 {")
    await browser.shows("#log", "delivered, run completed")
    await browser.shows("#log", "That was its end.")
    assert "400 {" not in await browser.text("#log")
    assert await browser.run(ENDED_AND_DEAD) == [2, "dead (rejected)"]
    await browser.run("stream = {close: () => { left = true; }}")
    assert await browser.run(DOUBLE_CLICK) == 1
    assert await browser.run("return left")  # the event of before
    await browser.shows("#log", "That was its end.")
    [refused] = await browser.complaints()  # of what was refused no stream was opened
    assert "/api/route" in refused
    await browser.click("a[href='/outbox']")
    await browser.shows("body", "Delivery is healthy")
    await browser.open(f"{url}/")
    await browser.click("#out")
    await browser.shows("h2", "Sign in")
