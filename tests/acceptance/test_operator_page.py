"""The operators' pages of a running service: over HTTP, and in a real browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.browser import BrowserError, chromium
from tests.support.fleet import running
from tests.support.operator_pages import (
    HOSTILE,
    bury,
    deliverable,
    served,
    settings,
    sign_in_browser,
    signed_in,
    visitor,
)
from tests.support.service_here import ServiceHere
from tests.support.storage import PATIENCE_SECONDS, SqliteStorage, eventually

OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
IN_USE_AND_LEFT = """
dead = ""; showDead("as drawn"); const first = find("stale").hidden;
document.activeElement.blur(); find("dead").matches = (where) => where === ":hover";
showDead("under the pointer"); const kept = find("dead").textContent.includes("aws.index");
find("dead").matches = () => false; find("stale").hidden = false;
const drawn = "<time class='ago' datetime='2001-01-01T00:00:00Z'></time><button>Replay</button>";
showDead(drawn);
const hidden = find("stale").hidden;
document.querySelector("#dead button").focus();
const stale = [drawn, "others", drawn].map((one) => (showDead(one), !find("stale").hidden));
const said = find("delivery").firstChild; showDelivery(said.textContent);  // not said again
const card = document.querySelector("[data-figure=dead]").parentElement;
const calm = card.className;
showFigures({sent: "9", dead: "7"});  // the page began without the first
return [first, kept, hidden, stale, find("dead").textContent.slice(-12),
  find("delivery").firstChild === said, calm, card.className, card.querySelector("dd").textContent];
"""
COLOURS = "return ['.pill', '.now'].map((one) => document.querySelector(one).className)"
NO_STORAGE = "Object.defineProperty(window, 'localStorage', {get() { throw new Error(); }})"
KEEP_TIMERS = "timers = []; setInterval = (run, after) => { timers.push([run, after]); }"
WRITTEN_AGAIN = """
const time = document.querySelector("main time");
const texts = (run) => [time.textContent = "", (run(), time.textContent !== "")];
return timers.map(([run, after]) => [...texts(run), after]);
"""
PAGES = (
    "/outbox",
    "/outbox/names",
    "/outbox/live",
    "/outbox/events",
    "/outbox/events/x",
    "/outbox/audit",
    "/outbox/export",
)
FORMS = (
    "/outbox/replay",
    "/outbox/replay/stop",
    "/outbox/discard",
    "/outbox/pause",
    "/outbox/events/x/payload",
)


@pytest.fixture
async def storage(tmp_path: Path) -> SqliteStorage:
    return SqliteStorage(tmp_path / "outbox.db")


@pytest.fixture
async def dead_ids(storage: SqliteStorage) -> list[str]:
    """Two dead events, one of them with hostile words, in the outbox that will be served."""
    async with storage.open() as outbox:
        return await bury(outbox, deliverable("u-1"), deliverable(HOSTILE))


@pytest.fixture
async def service(
    storage: SqliteStorage, dead_ids: list[str], inngest_api: FakeInngest
) -> AsyncIterator[ServiceHere]:
    del dead_ids
    async with served(storage, inngest_api) as one:
        yield one


async def test_only_operators_of_this_site_see_them_and_change_anything(
    service: ServiceHere, dead_ids: list[str]
) -> None:
    async with aiohttp.ClientSession() as nobody:
        for path in PAGES:
            async with nobody.get(service.url + path) as answer:
                assert answer.status == 401
    form = {"event": dead_ids[0], "confirmed": "yes"}
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    forms = (*FORMS, f"/outbox/events/{dead_ids[0]}/payload")
    async with signed_in(service.url, "ada@example.com") as other:
        for path in PAGES:
            async with other.get(service.url + path) as answer:
                assert answer.status == 403
        for path in forms:
            async with other.post(service.url + path, data=form) as answer:
                assert answer.status == 403
    async with signed_in(service.url) as session:
        for path in forms:
            async with session.post(service.url + path, data=form, headers=headers) as answer:
                assert answer.status == 403
        async with session.head(f"{service.url}/outbox/live") as answer:
            assert answer.status == 405
    async with visitor(service.url) as operator:
        assert dead_ids[0] in await operator.see("/outbox/events?state=dead")
        assert "No operator has changed anything" in await operator.see("/outbox/audit")


async def test_hostile_words_stay_words_on_every_page(
    service: ServiceHere, dead_ids: list[str]
) -> None:
    async with visitor(service.url) as operator:
        pages = [
            await operator.see(path)
            for path in (
                "/outbox",
                "/outbox/events?state=dead&user=%3Cscript%3E",
                "/outbox/events?state=dead",
                f"/outbox/events/{dead_ids[1]}",
                "/outbox/audit?event=%3Cscript%3E",
            )
        ]
        pages.append(await operator.send("/outbox/replay", ("event", dead_ids[1])))
        pages.append(await operator.send(f"/outbox/events/{dead_ids[1]}/payload"))
    assert all("<script>alert" not in page and "\u202e" not in page for page in pages)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\ufffdreversed" in pages[0]


async def test_a_change_is_confirmed_first(
    service: ServiceHere, dead_ids: list[str], inngest_api: FakeInngest
) -> None:
    first, second = dead_ids
    async with visitor(service.url) as operator:
        await operator.send("/outbox/replay", ("event", first))
        assert inngest_api.ledger.times(first) == 0
        form = (("event", first), ("confirmed", "yes"))
        done = await operator.send("/outbox/replay", *form)
        assert "Replayed 1 event. They go out again under their ids.</p>" in done
        await eventually(lambda: inngest_api.ledger.times(first) == 1)
        again = await operator.send("/outbox/replay", *form)
        assert "Replayed 0 events.</p>" in again
        form = (("event", second), ("confirmed", "yes"))
        assert "Discarded 1 event." in await operator.send("/outbox/discard", *form)
        assert "Nothing was refused for good" in await operator.see("/outbox")
    assert inngest_api.ledger.times(second) == 0


async def test_open_live_streams_do_not_hold_up_the_stop(
    storage: SqliteStorage, inngest_api: FakeInngest
) -> None:
    async with (
        running("serve", environment=settings(storage, inngest_api)) as service,
        signed_in(service.url) as session,
        asyncio.timeout(PATIENCE_SECONDS),
        session.get(f"{service.url}/outbox/live") as stream,
        session.get(f"{service.url}/outbox/live") as other,
    ):
        assert (await other.content.readline()) == b"event: figures\n"
        assert stream.content_type == "text/event-stream"
        assert stream.headers["X-Request-Id"]
        assert (await stream.content.readline()) == b"event: figures\n"
        # The stop gives requests 15 s and then cuts them; a stream ends by itself.
        assert await service.stop() == 0
        await stream.read()


@pytest.mark.slow
async def test_in_a_browser_it_is_live_and_works_by_keyboard(
    service: ServiceHere, dead_ids: list[str], inngest_api: FakeInngest, tmp_path: Path
) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox")
        assert await browser.title() == "Overview - Outbox"
        await browser.shows("#connection", "Live.")
        assert re.fullmatch(r"\d\d:\d\d", await browser.text("#charts text[data-at]"))
        assert await browser.role("#charts svg") == (
            "image",
            "Waiting over the last hour: 0 now, 0 at most.",
        )
        await browser.open(f"{service.url}/outbox/events/{dead_ids[1]}")
        # By keyboard alone: the skip link, then the first button after it.
        await browser.run("document.querySelector('a.skip').focus()")
        await browser.press("\ue007")
        assert await browser.run("return document.activeElement.id") == "content"
        await browser.run("document.querySelector('.actions button').focus()")
        await browser.press("\ue007")
        await browser.shows("h1", "Replay 1 event?")
        await browser.click("button.primary")
        await browser.shows(".notice", "Replayed 1 event.")
        await eventually(lambda: inngest_api.ledger.times(dead_ids[1]) == 1)
        await browser.open(f"{service.url}/outbox")
        await browser.shows("[data-figure=delivered]", "1")
        await browser.shows("#dead", "documents/aws.index")
        await browser.run("document.querySelector('#dead button').focus()")
        async with visitor(service.url) as other:
            await other.send("/outbox/pause", ("confirmed", "yes"), ("reason", "we move"))
            await browser.shows("#delivery", "we move")
            assert await browser.text("header .pill") == "paused"
            colours = ["pill delivery-paused", "card now delivery-paused"]
            assert await browser.run(COLOURS) == colours
            # A list under somebody's hands stays as it is, and says so.
            gone = (("event", dead_ids[0]), ("confirmed", "yes"))
            await other.send("/outbox/discard", *gone)
            await browser.shows("#stale", "There are other dead events by now")
            assert "documents/aws.index" in await browser.text("#dead")
            await browser.shows("[data-figure=dead]", "0")
            dead = ["card", "card alarming", "7"]
            told = [*[True] * 3, [False, True, False], " d agoReplay", True, *dead]
            assert await browser.run(IN_USE_AND_LEFT) == told
        assert await browser.complaints() == []
        await browser.devtools("Network.enable", {})
        await browser.devtools("Network.emulateNetworkConditions", OFFLINE)
        await browser.run("follow()")
        await browser.shows("#connection", "Not live: trying to reach the service.")


@pytest.mark.slow
async def test_in_a_browser_ids_and_payloads_are_copied(
    service: ServiceHere, dead_ids: list[str], tmp_path: Path
) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await browser.devtools("Page.addScriptToEvaluateOnNewDocument", {"source": NO_STORAGE})
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox/events/{dead_ids[1]}")
        await browser.click("#zone")
        assert await browser.text("#zone") == "Local time"
        assert await browser.role("h1 button.copy") == ("button", f"Copy {dead_ids[1]}")
        title = await browser.run("return document.querySelector('.timeline time').title")
        assert re.fullmatch(r"now|\d+ (s|min) ago", title)
        await browser.click("section form button")
        await browser.shows("pre", "a secret document")
        assert await browser.role("pre + button.copy") == ("button", "Copy the payload")
        await browser.open(f"{service.url}/outbox/events?state=dead")
        await browser.run("navigator.clipboard.writeText = async (text) => { copied = text; }")
        await browser.run("setTimeout = (run, after) => { later = [run, after]; }")
        await browser.click(".rows tr:nth-child(2) button.copy")
        await browser.shows(".rows tr:nth-child(2) button.copy", "Copied")
        assert await browser.run("return copied") == dead_ids[0]
        await browser.run("later[0]()")
        # Over plain HTTP from elsewhere a browser has no clipboard.
        await browser.run("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        await browser.run("document.execCommand = () => { window.copied = `${getSelection()}`; }")
        await browser.click(".rows tr:nth-child(2) button.copy")
        await browser.shows(".rows tr:nth-child(2) button.copy", "Copied")
        assert await browser.run("return window.copied") == dead_ids[0]
        assert await browser.run("later[0](); return later[1]") == 1500
        assert await browser.text(".rows tr:nth-child(2) button.copy") == "Copy"


@pytest.mark.slow
async def test_in_a_browser_times_are_relative_and_all_rows_are_selected_at_once(
    service: ServiceHere, dead_ids: list[str], tmp_path: Path
) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await browser.devtools("Page.addScriptToEvaluateOnNewDocument", {"source": KEEP_TIMERS})
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox/events?state=dead")
        await browser.shows("td[data-label=Accepted] time", " ago")
        seconds = "[0, 1, 59, 60, 7199, 7200, 172800, -90]"
        ago = f"return {seconds}.map((one) => ago(Date.now() - one * 1000))"
        assert await browser.run(ago) == [
            "now",
            "1 s ago",
            "59 s ago",
            "1 min ago",
            "1 h ago",
            "2 h ago",
            "2 d ago",
            "in 1 min",
        ]
        moment = "return exact(0)"
        assert await browser.role("#zone") == ("button", "Times are in UTC. Change")
        assert await browser.run(moment) == "1970-01-01 00:00:00 UTC"
        await browser.click("#zone")
        assert await browser.text("#zone") == "Local time"
        assert await browser.role("#zone") == ("button", "Times are local. Change")
        assert await browser.run(moment) == "1970-01-01 05:30:00"
        assert await browser.run("return exact(-8e11)") == "1944-08-26 00:16:40"  # summer time
        exact = "return document.querySelector('td[data-label=Accepted] time').title"
        assert "UTC" not in await browser.run(exact)
        await browser.open(f"{service.url}/outbox?span=day")
        await browser.shows("#connection", "Live.")
        assert await browser.run(WRITTEN_AGAIN) == [["", True, 10000]]
        # Drawn anew, with nothing else that writes times, they are of a day and in the own zone.
        await browser.run("showDead = () => {}; find('charts').replaceChildren(); follow()")
        await browser.shows("#charts text[data-at]", ":30")
        assert "over the last day" in (await browser.role("#charts svg"))[1]
        await browser.open(f"{service.url}/outbox/events?state=dead")
        await browser.click("#zone")
        await browser.open(f"{service.url}/outbox/events?state=dead")
        assert (await browser.run(exact)).endswith(" UTC")
        ticked = "return document.querySelectorAll('input[name=event]:checked').length"
        for count in (2, 0, 2):
            await browser.click("#all-rows")
            assert await browser.run(ticked) == count
        await browser.click(".bulk button.replay")
        await browser.shows("h1", "Replay 2 events?")


@pytest.mark.slow
async def test_in_a_browser_without_javascript_it_is_read_and_repaired(
    service: ServiceHere, dead_ids: list[str], tmp_path: Path
) -> None:
    async with chromium(tmp_path / "profile", javascript=False) as browser:
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox")
        assert "reload for newer" in await browser.text("#connection")
        await browser.click("dl.cards .alarming a")
        await browser.shows(".list", dead_ids[0])
        await browser.click(f"input[value='{dead_ids[1]}']")
        await browser.click(".bulk button.discard")
        await browser.shows("h1", "Discard 1 event?")
        await browser.click("button.danger")
        await browser.shows(".notice", "Discarded 1 event.")

        with pytest.raises(BrowserError):
            await browser.text(f"input[value='{dead_ids[1]}']")


async def test_a_form_that_is_none_of_the_pages_names_no_event(service: ServiceHere) -> None:
    forms = [
        ("multipart/form-data", b"id=x"),
        ("multipart/form-data; boundary=a", b"--b"),
        ("application/x-www-form-urlencoded; charset=none", b"id=x"),
        ("application/x-www-form-urlencoded", b"id=%ff%00"),
        ("application/x-www-form-urlencoded", b"a" * 256 * 1024),
        ("application/x-www-form-urlencoded", b"a=1&" * 1_999),
        ("text/plain", b"\xff"),
    ]
    async with signed_in(service.url) as session:
        for content_type, body in forms:
            headers = {"Content-Type": content_type}
            place = f"{service.url}/outbox/discard"
            async with session.post(place, data=body, headers=headers) as answer:
                assert answer.status == 404
                assert (await answer.json())["code"] == "not_found"
