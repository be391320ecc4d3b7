"""The relay between a real SQLite outbox and the fake Inngest: batches, keys, pauses and stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.dev.fake_inngest.faults import Action, Hang, Partial, Slow, TooLarge
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from service.outbox.model import State
from service.relay.sends import BreakerState
from tests.support.delivery import Delivery, Policies, delivering
from tests.support.storage import eventually


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


async def test_a_batch_that_is_too_large_is_halved(delivery: Delivery) -> None:
    delivery.api.faults.add(TooLarge(max_events=3), times=None)
    rows = await delivery.ends(await delivery.accept(*[f"d-{n}" for n in range(40)]))
    assert {row.attempts for row in rows} == {1}


async def test_a_fallback_key_is_used_while_the_first_is_refused(tmp_path: Path) -> None:
    async with (
        FakeInngest(options=FakeOptions(keys=["key-2"])) as api,
        delivering(tmp_path / "outbox.db", api, fallback_key="key-2") as delivery,
    ):
        ids = []
        for n in range(5):
            ids += await delivery.accept(*[f"d-{n}-{m}" for m in range(100)])
        await delivery.ends(ids)
        asked = len(api.ledger.requests)
        await delivery.ends(await delivery.accept("d"))
        assert [request.key for request in api.ledger.requests][asked:] == ["key-2"]
        api.event_api.keys = ["key-1"]
        await delivery.ends(await delivery.accept("d"))
        assert delivery.relay.breaker.state is BreakerState.HEALTHY


async def test_a_pause_sends_nothing_and_a_resume_sends_all(delivery: Delivery) -> None:
    await delivery.outbox.repairs.set_paused(paused=True, actor="test")

    async def paused() -> bool:
        return delivery.relay.breaker.paused

    await eventually(paused)
    ids = await delivery.accept("d-1", "d-2")
    stats = await delivery.outbox.inspector.stats()
    assert (stats.pending, stats.delivering) == (2, 0)
    assert delivery.api.ledger.request_count == 0
    await delivery.outbox.repairs.set_paused(paused=False, actor="test")
    await delivery.ends(ids)


async def test_a_stop_lets_sends_under_way_settle(tmp_path: Path, inngest_api: FakeInngest) -> None:
    inngest_api.faults.add(Slow(seconds=0.3))
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        ids = await delivery.accept("d")
        await inngest_api.ledger.wait_for_requests(1)
        await delivery.relay.stop()
        assert (await delivery.row(ids[0])).state is State.DELIVERED


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
