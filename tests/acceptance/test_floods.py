"""Floods cost the service a bounded memory, and it answers others meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment, running
from tests.support.floods import FLOODS, KEY, cost

MIB = 1024 * 1024
# A head of 64 KiB is kept as bytes and as text; a body's framing likewise; one read is 256 KiB.
BYTES_PER_CONNECTION = MIB
BASE_BYTES = 32 * MIB
AT_HOME = ("gzip bombs", "unfinished heads", "large bodies")
CHOSEN = [
    pytest.param(one, marks=() if one in AT_HOME else pytest.mark.slow, id=one) for one in FLOODS
]


@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize("flood", CHOSEN)
async def test_a_flood_costs_a_bounded_memory(
    tmp_path: Path, inngest_api: FakeInngest, flood: str, seconds: float
) -> None:
    outbox = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(outbox, inngest_api.url, OUTBOX_EVENT_KEYS=f"cron:{KEY}")
    async with running("serve", environment=settings) as service:
        found = await cost(service.url, service.process.pid, flood, seconds)
    print(f"{flood}: {found.grown_bytes / MIB:.0f} MiB, {found.slowest_seconds:.2f} s")
    connections = FLOODS[flood][1]
    assert found.grown_bytes < BASE_BYTES + connections * BYTES_PER_CONNECTION
