"""A real headless Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.neighbours import lacks
from tests.support.storage import eventually

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_CHROMIUM_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--window-size=1200,1400",
)
START_SECONDS = 180.0


class BrowserError(Exception):
    """What the driver says went wrong."""


class Browser:
    def __init__(self, http: aiohttp.ClientSession, session_url: str) -> None:
        self._http = http
        self._url = session_url

    async def open(self, url: str) -> None:
        await self._post("url", {"url": url})

    async def title(self) -> str:
        return str(await self._get("title"))

    async def source(self) -> str:
        return str(await self._get("source"))

    async def text(self, selector: str) -> str:
        return str(await self._get(f"element/{await self._find(selector)}/text"))

    async def shows(self, selector: str, words: str) -> None:
        """Wait until the element holds `words`; pages and parts of them may be replaced."""

        async def text() -> str:
            with contextlib.suppress(BrowserError):
                return await self.text(selector)
            return ""

        await eventually(text, lambda seen: words in seen)

    async def click(self, selector: str) -> None:
        await self._post(f"element/{await self._find(selector)}/click", {})

    async def role(self, selector: str) -> tuple[str, str]:
        """The role and the name that a screen reader is given."""
        element = await self._find(selector)
        role = await self._get(f"element/{element}/computedrole")
        return str(role), str(await self._get(f"element/{element}/computedlabel"))

    async def press(self, keys: str) -> None:
        active = (await self._get("element/active"))[_ELEMENT]
        await self._post(f"element/{active}/value", {"text": keys})

    async def run(self, script: str) -> Any:
        return await self._post("execute/sync", {"script": script, "args": []})

    async def add_cookie(self, name: str, value: str, *, secure: bool = False) -> None:
        cookie = {"name": name, "value": value, "path": "/", "httpOnly": True, "secure": secure}
        await self._post("cookie", {"cookie": cookie})

    async def fill(self, selector: str, text: str) -> None:
        await self._post(f"element/{await self._find(selector)}/value", {"text": text})

    async def delete_cookies(self) -> None:
        async with self._http.delete(f"{self._url}/cookie"):
            pass

    async def open_tab(self, url: str) -> None:
        """Open `url` in a new tab beside the others; what follows is about that tab."""
        made = await self._post("window/new", {"type": "tab"})
        await self._post("window", {"handle": made["handle"]})
        await self.open(url)

    async def open_tab_instead(self) -> None:
        """Close the tab, in favour of an empty one."""
        [closed] = await self._get("window/handles")
        made = await self._post("window/new", {"type": "tab"})
        async with self._http.delete(f"{self._url}/window"):
            pass
        await self._post("window", {"handle": made["handle"]})
        assert closed not in await self._get("window/handles")

    async def complaints(self) -> list[str]:
        """What the console holds: scripts and styles that the policy refused, errors."""
        entries = await self._post("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    async def emulate(self, *, width: int, scheme: str, height: int = 900) -> None:
        """Show pages so many pixels wide, in a colour scheme: light or dark."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.devtools("Emulation.setDeviceMetricsOverride", screen)
        await self.devtools("Emulation.setScrollbarsHidden", {"hidden": True})
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.devtools("Emulation.setEmulatedMedia", {"features": features})

    async def picture(self, path: Path) -> None:
        """The whole page, as WebP."""
        wanted = {"captureBeyondViewport": True, "format": "webp", "quality": 80}
        taken = await self.devtools("Page.captureScreenshot", wanted)
        path.write_bytes(base64.b64decode(taken["data"]))  # noqa: ASYNC240

    async def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        """A command of the DevTools protocol."""
        return await self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    async def _find(self, selector: str) -> str:
        found = await self._post("element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])

    async def _get(self, path: str) -> Any:
        async with self._http.get(f"{self._url}/{path}") as answer:
            return _value(await answer.json())

    async def _post(self, path: str, body: object) -> Any:
        async with self._http.post(f"{self._url}/{path}", json=body) as answer:
            return _value(await answer.json())


@contextlib.asynccontextmanager
async def chromium(
    profile: Path, *, javascript: bool = True, reaches: str | None = None
) -> AsyncIterator[Browser]:
    """A browser with a fresh profile; skips where there is none, fails in CI.

    `reaches` is the only host that it finds, None for all.
    """
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not browser:
        lacks("chromium with its chromedriver")
    async with asyncio.timeout(START_SECONDS):
        process, url = await _driver(driver)
    try:
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(START_SECONDS):
                session = await _start(http, url, browser, profile, javascript, reaches)
            try:
                yield Browser(http, session)
            finally:
                await http.delete(session)
    finally:
        process.terminate()
        await process.wait()


async def _driver(path: str) -> tuple[asyncio.subprocess.Process, str]:
    """A chromedriver and its address; it ends where the port it chose is taken for IPv6."""
    while True:
        process = await asyncio.create_subprocess_exec(
            path, "--port=0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        said = b""
        async for line in process.stdout:
            if found := re.search(rb"started successfully on port (\d+)", line):
                return process, f"http://127.0.0.1:{int(found.group(1))}"
            said += line
        await process.wait()
        assert b"port not available" in said, said.decode()


async def _start(
    http: aiohttp.ClientSession,
    url: str,
    browser: str,
    profile: Path,
    javascript: bool,  # noqa: FBT001
    reaches: str | None,
) -> str:
    arguments = [*_CHROMIUM_ARGUMENTS, f"--user-data-dir={profile}"]
    options: dict[str, object] = {"binary": browser, "args": arguments}
    if reaches:
        arguments.append(f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {reaches}")
    if not javascript:
        options["prefs"] = {"webkit.webprefs.javascript_enabled": False}
        arguments.append("--blink-settings=scriptEnabled=false")
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"implicit": 5000},
    }
    async with http.post(f"{url}/session", json={"capabilities": {"alwaysMatch": wanted}}) as made:
        return f"{url}/session/{_value(await made.json())['sessionId']}"


def _value(answer: dict[str, Any]) -> Any:
    value = answer["value"]
    if isinstance(value, dict) and "error" in value:
        raise BrowserError(value["message"])
    return value
