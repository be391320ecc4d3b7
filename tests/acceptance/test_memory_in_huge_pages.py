"""Each process that serves has its heap in huge pages soon after its start."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment, running
from tests.support.front_processes import children_of
from tests.support.huge_pages import can_collapse, huge_kib
from tests.support.storage import eventually

pytestmark = pytest.mark.skipif(
    not can_collapse(), reason="this kernel makes no huge pages when asked"
)


@pytest.mark.parametrize(("concurrency", "processes"), [("1", 1), ("2", 3)])
async def test_every_process_that_serves_puts_its_heap_into_huge_pages(
    tmp_path: Path, inngest: FakeInngest, concurrency: str, processes: int
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(url, inngest.url, WEB_CONCURRENCY=concurrency)
    async with running("serve", environment=settings) as parent:
        serving = children_of(parent) or [psutil.Process(parent.process.pid)]
        assert len(serving) == processes

        async def all_have_them() -> bool:
            return all(huge_kib(one.pid) > 0 for one in serving)

        await eventually(all_have_them)
