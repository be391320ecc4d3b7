"""The relay between a real SQLite outbox and the fake Inngest: batches and stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.dev.fake_inngest.faults import Action, Hang, Partial
from service.dev.fake_inngest.server import FakeInngest
from tests.support.delivery import Delivery, Policies, delivering


async def test_an_id_for_every_event_delivers_all(delivery: Delivery) -> None:
    ids = await delivery.accept(*[f"d-{n}" for n in range(50)])
    rows = await delivery.ends(ids)
    assert {(row.attempts, row.sends) for row in rows} == {(1, 1)}
    assert [delivery.api.ledger.times(one) for one in ids] == [1] * 50


@pytest.mark.parametrize("fault", [Partial(3), Partial(3, blank=True)], ids=["fewer", "empty"])
async def test_without_an_id_an_event_stays_and_is_sent_again_at_once(
    delivery: Delivery, fault: Action
) -> None:
    delivery.api.faults.add(fault)
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)])
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    assert sorted(row.sends for row in rows) == [1] * 7 + [2] * 3
    assert delivery.api.ledger.stats.arrivals == 10


async def test_a_send_that_is_cut_off_by_the_stop_is_sent_again_after_the_start(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    inngest_api.faults.add(Hang(store=True))
    cut = Policies(drain_seconds=0)
    async with delivering(tmp_path / "outbox.db", inngest_api, policies=cut) as delivery:
        ids = await delivery.accept("d")
        await inngest_api.ledger.wait_for_requests(1)
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        [row] = await delivery.ends(ids)
        assert (row.attempts, row.sends) == (1, 2)
    assert inngest_api.ledger.times(ids[0]) == 2
    assert inngest_api.runs.count == 1
