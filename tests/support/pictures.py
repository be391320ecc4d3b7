"""Pictures of pages for the documentation: `make pictures` makes them again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from inngest_outbox.dev.fake_inngest.faults import ScriptedAnswer
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.browser import Browser, chromium
from tests.support.nextjs_example import (
    example_in,
    front_end,
    settings_of_one_command,
    sign_in,
)
from tests.support.node_packages import ROOT
from tests.support.operator_pages import served, sign_in_browser
from tests.support.operator_scenes import Scene, fill
from tests.support.poster import Poster
from tests.support.storage import SqliteStorage

FOLDER = ROOT / "docs" / "operate" / "pictures"
GUIDE = ROOT / "docs" / "guide" / "pictures"
# Those in the documentation: the scene, the page, its width, the scheme.
SHOWN = (
    ("full", "overview", 1200, "light"),
    ("trouble", "overview", 1200, "dark"),
    ("full", "dead", 1200, "light"),
    ("full", "event", 1200, "light"),
    ("full", "replay", 1200, "dark"),
    ("full", "overview", 400, "light"),
    ("full", "dead", 400, "dark"),
)
_PAGES = (
    *("overview", "names", "events", "dead", "event", "waiting"),
    *("replay", "pause", "audit"),
)
EVERY = tuple(
    (scene, page, width, scheme)
    for scene in ("empty", "full", "trouble")
    for page in _PAGES
    for width in (1200, 400)
    for scheme in ("light", "dark")
    if scene != "empty" or page in ("overview", "dead", "audit")
)


async def take(folder: Path, wanted: tuple[tuple[str, str, int, str], ...]) -> None:
    """Take these pictures."""
    for scene in dict.fromkeys(scene for scene, *_ in wanted):
        async with _shown(scene) as (browser, url, found):
            for _, page, width, scheme in (one for one in wanted if one[0] == scene):
                await browser.emulate(width=width, scheme=scheme)
                await _open(browser, url, scene, page, found)
                name = f"{scene}-{page}-{width}-{scheme}.webp"
                await browser.picture(folder / name)


@contextlib.asynccontextmanager
async def _shown(scene: str) -> AsyncIterator[tuple[Browser, str, Scene]]:
    with tempfile.TemporaryDirectory() as name:
        storage, found = SqliteStorage(Path(name) / "outbox.db"), Scene("", "")
        async with storage.open() as outbox:
            if scene != "empty":
                found = await fill(outbox)
        async with FakeInngest() as api, chromium(Path(name) / "profile") as browser:
            if scene == "trouble":
                api.faults.add(ScriptedAnswer(503), times=None)
            async with served(storage, api) as service:
                if scene == "trouble":
                    await _post_some(service.url)
                await sign_in_browser(browser, service.url)
                yield browser, service.url, found


async def _post_some(url: str) -> None:
    poster = Poster(url)
    await poster.sign_in("ada")
    for _ in range(40):
        await poster.post()
    await poster.http.close()


async def take_start_page(folder: Path) -> None:
    """The start page after a post whose event has arrived."""
    with tempfile.TemporaryDirectory() as name:
        storage = SqliteStorage(Path(name) / "outbox.db")
        async with (
            FakeInngest() as api,
            chromium(Path(name) / "profile") as browser,
            served(storage, api) as service,
        ):
            await browser.emulate(width=900, height=800, scheme="light")
            await sign_in_browser(browser, service.url)
            await browser.open(service.url)
            await browser.click("#post button")
            await browser.shows("#log", "delivered")
            await browser.picture(folder / "start-page.webp")


async def take_sample(folder: Path) -> None:
    """The Next.js example after a report that was asked for is complete."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        example, settings = example_in(place), settings_of_one_command(place)
        async with (
            front_end(example, "start.mjs", settings=settings) as url,
            chromium(place / "profile") as browser,
        ):
            await browser.emulate(width=700, height=320, scheme="light")
            await sign_in(browser, url)
            await browser.click("button")
            await browser.shows("[role=status]", "completed")
            await browser.picture(folder / "nextjs-sample.webp")


async def _open(browser: Browser, url: str, scene: str, page: str, found: Scene) -> None:
    await browser.open(url + _PATHS[page].format(dead=found.dead, waiting=found.waiting))
    if page == "overview":
        await browser.shows("#connection", "Live.")
        await browser.shows("#delivery", _DELIVERY[scene])
    if page in _CLICKS:
        await browser.click(_CLICKS[page])
        await browser.shows("h1", _HEADINGS[page])


_PATHS = {
    "overview": "/outbox",
    "events": "/outbox/events",
    "dead": "/outbox/events?state=dead",
    "event": "/outbox/events/{dead}",
    "waiting": "/outbox/events/{waiting}",
    "replay": "/outbox/events?state=dead&reason=rejected",
    "pause": "/outbox",
    "audit": "/outbox/audit",
    "names": "/outbox/names",
}
_DELIVERY = {"empty": "", "full": "healthy", "trouble": "backing off"}
_CLICKS = {"replay": "button.replay[name=all]", "pause": ".pause button"}
_HEADINGS = {"replay": "Replay", "pause": "Pause"}


def main() -> None:
    """Take the pictures of the documentation, or with a folder every page there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--every", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    for folder in (given.every or FOLDER, GUIDE):
        folder.mkdir(exist_ok=True, parents=True)
    if given.every:
        asyncio.run(take(given.every, EVERY))
        return
    asyncio.run(take(FOLDER, SHOWN))
    asyncio.run(take_start_page(GUIDE))
    asyncio.run(take_sample(GUIDE))


if __name__ == "__main__":
    main()
