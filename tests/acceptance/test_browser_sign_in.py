"""The development sign-in's form in a real Chromium, which writes `Origin` by the page's policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import chromium
from tests.support.fleet import Process

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_developer_signs_in_with_the_form(development: Process, tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await browser.open(f"{development.url}/auth/dev-login?returnTo=/auth/session")
        await browser.fill("#email", "ada@example.com")
        await browser.click("button")
        await browser.shows("body", '"id":"ada@example.com"')
