"""The Next.js example in a copy of its own: started, ready, signed in to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp

from tests.support.browser import Browser
from tests.support.fleet import attended
from tests.support.free_port import free_port
from tests.support.node_packages import ROOT, built_client, installed


def example_in(folder: Path) -> Path:
    """A copy of the example with its packages, beside a built copy of the client."""
    built_client(folder)
    return installed(ROOT / "examples" / "nextjs", folder / "examples" / "nextjs")


def settings_of_one_command(folder: Path) -> dict[str, str]:
    """The environment of `npm start`, which starts the service too, with its outbox in `folder`."""
    plain = {name: "" for name in os.environ if name.startswith(("AWS_", "INNGEST_", "OUTBOX_"))}
    return plain | {
        "PYTHON": str(ROOT / ".venv" / "bin" / "python"),
        "OUTBOX_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
        "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
    }


@contextlib.asynccontextmanager
async def front_end(
    example: Path, *command: str, settings: Mapping[str, str]
) -> AsyncIterator[str]:
    port = str(free_port())
    url = f"http://localhost:{port}"
    own = {"PORT": port, "NEXT_TELEMETRY_DISABLED": "1"}
    if "start.mjs" not in command:  # it sets the variable itself
        own["NEXTAUTH_URL"] = url
    node = await asyncio.create_subprocess_exec(
        str(shutil.which("node")),
        *command,
        cwd=example,
        env={**os.environ, **own, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with attended(node, "Ready in"):
        await compiled(url)
        yield url
    assert node.returncode in (0, 143)  # it has ended, and what it started before it


async def compiled(url: str) -> None:
    """The development server compiles a page when it is first asked for."""
    async with aiohttp.ClientSession() as http:
        for path in ("/", "/documents", "/api/auth/signin"):
            async with http.get(url + path) as answer:
                assert answer.status == 200


async def sign_in(browser: Browser, url: str) -> None:
    await browser.open(url)
    await browser.shows("a", "Sign in")
    await browser.click("a")
    await browser.shows("label", "E-mail")
    await browser.fill("#input-email-for-credentials-provider", "ada@example.com")
    await browser.click("button[type=submit]")
    await browser.shows("h1", "Ask for a report")
