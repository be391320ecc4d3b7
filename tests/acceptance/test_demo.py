from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from inngest_outbox.dev.demo.demo import _missing, _Stage
from inngest_outbox.dev.demo.picture import DemoPicture
from inngest_outbox.dev.demo.posts import DemoPosts
from inngest_outbox.dev.demo.service import DemoService
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import ROOT


@pytest.mark.slow
async def test_the_demo_loses_nothing_and_says_so_without_a_terminal() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inngest_outbox", "demo", "--quick", "--posts-per-second", "60"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    text = out.decode()
    assert (process.returncode, err) == (0, b""), text
    counts = re.search(r"^accepted (\d+), held by Inngest (\d+), lost 0$", text, re.MULTILINE)
    assert counts.group(1) == counts.group(2) != "0"
    assert "\x1b" not in text
    for moment in ("goes away", "is back", "outbox replay", "SIGKILL", "started again"):
        assert moment in text


async def test_an_accepted_event_that_inngest_does_not_hold_is_counted(tmp_path: Path) -> None:
    posts = DemoPosts([], lambda: "")
    posts.accepted = {"never-arrived"}
    async with FakeInngest() as api:
        stage = _Stage(api, DemoService(tmp_path, ""), posts, DemoPicture(None))
        assert _missing(stage) == {"never-arrived"}
