"""Nothing that was answered with 200 is lost: kills, Inngest's faults, the network's, poison."""

from __future__ import annotations

from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.faults import Hang, Reset
from tests.support import scenarios


async def test_what_was_accepted_survives_kills_under_load(tmp_path: Path) -> None:
    (await scenarios.kill_rounds(tmp_path / "outbox.db", 3)).check()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Hang(store=True), Reset("stored")], ids=["hangs", "drops"])
async def test_what_was_accepted_survives_kills_while_inngest(
    tmp_path: Path, fault: Hang | Reset
) -> None:
    (await scenarios.kill_rounds(tmp_path / "outbox.db", 2, fault)).check()


async def test_faults_of_inngest_lose_nothing_kill_nothing_and_hold_up_no_post(
    tmp_path: Path,
) -> None:
    # What pauses the delivery for 5 s is tested with the relay, and in the soak.
    names = [name for name in scenarios.FAKE_INNGEST_FAULTS if name not in {"401", "308"}]
    for verdict in await scenarios.faults(tmp_path / "outbox.db", 0.2, names):
        verdict.check()
        assert verdict.refused == 0


async def test_faults_of_the_network_lose_nothing_and_kill_nothing(tmp_path: Path) -> None:
    for verdict in await scenarios.proxy_faults(tmp_path / "outbox.db", 0.3):
        verdict.check()


async def test_poison_dies_alone_under_load(tmp_path: Path) -> None:
    verdict = await scenarios.poison(tmp_path / "outbox.db", 300)
    verdict.check()
    assert verdict.sent_twice == 0
