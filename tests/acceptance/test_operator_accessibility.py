"""axe finds nothing on any of the service's pages, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.faults import ScriptedAnswer
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.browser import Browser, chromium
from tests.support.node_packages import ROOT, installed
from tests.support.operator_pages import served, sign_in_browser
from tests.support.operator_scenes import Scene, fill
from tests.support.service_here import ServiceHere
from tests.support.storage import SqliteStorage

pytestmark = pytest.mark.slow

# Everything that axe knows of the standards, and its best practices.
_RUN = """
return axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
  (one) => one.id + ": " + one.nodes.map((node) => node.html).join(" | ").slice(0, 400)))
"""
# The colour of each state and of each line.
TONES = {
    "good": ["state-delivered", "delivery-healthy", "key delivered"],
    "warn": ["state-pending", "delivery-recovering", "delivery-backing_off"],
    "bad": ["state-dead", "delivery-misconfigured"],
    "accent": ["state-delivering", "state-sent", "delivery-paused", "key waiting", "key accepted"],
}
_TONES = """
const probe = document.body.appendChild(document.createElement("i"));
const is = (kind, tone) => {
  probe.className = kind;
  const style = getComputedStyle(probe);
  const value = (name) => style.getPropertyValue(name);
  return (value("--tone") || value("--stroke")) === value(`--${tone}`);
};
const kinds = Object.values(TONES).flat(), tones = Object.keys(TONES);
return Object.fromEntries(tones.map((tone) => [tone, kinds.filter((kind) => is(kind, tone))]));
"""
_TOO_WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    package = ROOT / "tests" / "support" / "axe"
    copy = installed(package, tmp_path_factory.mktemp("axe") / "axe")
    return (copy / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture
async def storage(tmp_path: Path) -> SqliteStorage:
    return SqliteStorage(tmp_path / "outbox.db")


@pytest.fixture
async def scene(storage: SqliteStorage) -> Scene:
    async with storage.open() as outbox:
        return await fill(outbox)


@pytest.fixture
async def service(
    storage: SqliteStorage, scene: Scene, inngest_api: FakeInngest
) -> AsyncIterator[ServiceHere]:
    """In trouble: Inngest takes nothing."""
    inngest_api.faults.add(ScriptedAnswer(503), times=None)
    async with served(storage, inngest_api) as one:
        yield one


async def faults_of(browser: Browser, axe: str) -> list[str]:
    await browser.run(axe)
    too_wide = await browser.run(_TOO_WIDE)
    found: list[str] = await browser.run(_RUN)
    return [*found, *([f"{too_wide} pixels too wide"] if too_wide > 0 else [])]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
async def test_axe_finds_nothing(
    service: ServiceHere, scene: Scene, axe: str, tmp_path: Path, width: int, scheme: str
) -> None:
    pages = {
        "/outbox": None,
        "/outbox?span=day": ("details.table summary", "details.table[open]", "Waiting"),
        "/outbox/names": ("details summary", "details[open]", "its trigger has this name"),
        "/outbox/events": None,
        "/outbox/events?state=dead&user=u-1": None,
        "/outbox/events?state=dead&user=nobody": None,
        f"/outbox/events/{scene.waiting}": ("section form button", "pre", "documentName"),
        f"/outbox/events/{scene.dead}": (".actions .replay", "h1", "Replay"),
        "/outbox/audit": ("details summary", "details[open]", "event"),
        "/outbox/events?state=pending": ("button[name=all]", "h1", "Discard"),
        "/outbox/events/unknown": None,
        "/": ("#post button", "#log", "200 {"),
        "/auth/dev-login": None,
        "/nowhere": None,
        "/outbox?": (".pause button", "h1", "Pause"),
    }
    async with chromium(tmp_path / "profile") as browser:
        await browser.emulate(width=width, scheme=scheme)
        await sign_in_browser(browser, service.url)
        found: dict[str, list[str]] = {}
        for page, then in pages.items():
            await browser.open(service.url + page)
            found[page] = await faults_of(browser, axe)
            if then:
                button, place, words = then
                await browser.click(button)
                await browser.shows(place, words)
                found[f"{page} {button}"] = await faults_of(browser, axe)
        assert await browser.run(f"const TONES = {TONES}; {_TONES}") == TONES
    assert {page: faults for page, faults in found.items() if faults} == {}


async def test_no_live_region_counts_seconds(
    service: ServiceHere, axe: str, tmp_path: Path
) -> None:
    """Screen readers are told of a change of delivery, not of each figure."""
    async with chromium(tmp_path / "profile") as browser:
        await sign_in_browser(browser, service.url)
        await browser.open(f"{service.url}/outbox")
        await browser.shows("#connection", "Live.")
        await browser.shows("#delivery", "backing off")
        await browser.shows("header .pill", "backing off")
        regions = await browser.run(
            "return [...document.querySelectorAll('[role=status],[aria-live]')]"
            ".filter((one) => !one.hidden).map((one) => one.textContent)"
        )
    assert len(regions) == 1
    assert "in trouble" in regions[0]
    assert not any(character.isdigit() for character in regions[0].replace("503", ""))
