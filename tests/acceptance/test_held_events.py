"""Events that are held until a time, over HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.dev.fake_inngest.server import FakeInngest
from tests.support.plain_browser import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def post(browser: Browser, send_at: object) -> tuple[int, Any]:
    body = {"documentName": "example", "sendAt": send_at}
    return await browser.ask("POST", "/api/route", json=body)


def from_now(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


async def test_an_event_is_sent_when_its_time_comes(browser: Browser, inngest: FakeInngest) -> None:
    await browser.sign_in("u-1")
    send_at = from_now(1.5)
    _, later = await post(browser, send_at)
    _, now = await post(browser, from_now(-60))
    for event in (now, later):
        assert await inngest.ledger.wait_for_id(event["eventId"])
    [first, *_] = inngest.ledger.kept(event_id=later["eventId"])
    assert first.received_at_ms >= send_at


async def test_an_event_that_is_held_can_be_taken_back(
    browser: Browser, inngest: FakeInngest
) -> None:
    await browser.sign_in("u-1")
    _, held = await post(browser, from_now(3600))
    path = f"/api/events/{held['eventId']}"
    _, view = await browser.ask("GET", path)
    assert (view["state"], view["final"]) == ("pending", False)
    assert (await browser.ask("DELETE", path))[0] == 204
    assert (await browser.ask("GET", path))[0] == 404
    assert inngest.ledger.times(held["eventId"]) == 0


@pytest.mark.parametrize("send_at", ["tomorrow", -1, 1.5, 4_102_444_800_001, True])
async def test_a_time_that_makes_no_sense_is_refused(browser: Browser, send_at: object) -> None:
    await browser.sign_in("u-1")
    status, answer = await post(browser, send_at)
    assert (status, answer["code"]) == (400, "invalid_field")
