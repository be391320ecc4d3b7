"""The soak: longer trials, each bounded, and a table of their verdicts at the end (make soak)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.faults import Hang, Reset
from tests.support import disks, scenarios
from tests.support.trial import Verdict, table

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SCENARIOS: dict[str, Callable[[Path], Awaitable[Verdict | list[Verdict]]]] = {
    "kills": lambda path: scenarios.kill_rounds(path, 20, None, "20 SIGKILLs"),
    "kills_while_it_hangs": lambda path: scenarios.kill_rounds(
        path, 20, Hang(store=True), "20 SIGKILLs, Inngest hangs"
    ),
    "kills_while_answers_drop": lambda path: scenarios.kill_rounds(
        path, 20, Reset("stored"), "20 SIGKILLs, answers dropped"
    ),
    "faults": lambda path: scenarios.faults(path, 4),
    "proxy_faults": lambda path: scenarios.proxy_faults(path, 5),
    "fault_sequence": lambda path: scenarios.fault_sequence(path, 60),
    "outage": lambda path: scenarios.outage(path, 60),
    "poison": lambda path: scenarios.poison(path, 5000),
    "held": lambda path: disks.is_held(path, 10),
    "limited": lambda path: disks.is_limited(path, 5),
    "read_only": lambda path: disks.is_read_only(path, 5),
    "filled": lambda path: disks.is_filled_by_the_outbox(path.parent / "disk"),
    "filled_by_others": lambda path: disks.is_filled_by_others(path.parent / "disk", 5),
}


@pytest.fixture(scope="module")
def verdicts() -> Iterator[list[Verdict]]:
    found: list[Verdict] = []
    yield found
    print(f"\n\n{table(found)}")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_nothing_is_lost(name: str, tmp_path: Path, verdicts: list[Verdict]) -> None:
    found = await SCENARIOS[name](tmp_path / "outbox.db")
    one_or_more = found if isinstance(found, list) else [found]
    verdicts += one_or_more
    for verdict in one_or_more:
        verdict.check()
