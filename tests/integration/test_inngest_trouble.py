"""Inngest is in trouble, away or told a wrong key: nobody ages and all is delivered."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.dev.fake_inngest.faults import Action, Cut, Drip, Hang, Reset, ScriptedAnswer
from service.dev.fake_inngest.server import FakeInngest
from service.outbox.model import State
from service.relay.sends import BreakerState
from tests.support.delivery import QUICK, Delivery, delivering


@pytest.mark.parametrize(
    "fault",
    [
        ScriptedAnswer(401, body='{"error":"Event key not found","status":401}'),
        ScriptedAnswer(308, headers={"Location": "http://127.0.0.1:1/e/x"}),
        ScriptedAnswer(503, body='{"error":"event keys are required to send events","status":503}'),
    ],
    ids=["401", "308", "503 without keys"],
)
async def test_a_wrong_configuration_pauses_the_delivery_and_ages_nobody(
    quick_delivery: Delivery, fault: Action
) -> None:
    quick_delivery.api.faults.add(fault, times=None)
    ids = await quick_delivery.accept(*[f"d-{n}" for n in range(10)])
    await quick_delivery.delivery_is(BreakerState.MISCONFIGURED)
    await quick_delivery.api.ledger.wait_for_requests(3)
    assert {(await quick_delivery.row(one)).attempts for one in ids} == {0}
    quick_delivery.api.faults.clear()
    rows = await quick_delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    assert [request.events for request in quick_delivery.api.ledger.requests][1:4] == [1, 1, 1]


@pytest.mark.parametrize(
    "fault",
    [
        ScriptedAnswer(500),
        ScriptedAnswer(200, body="<html>captive portal</html>", content_type="text/html"),
        Reset("unread"),
        Reset("stored"),
        Hang(store=True),
        Drip(seconds=0.2),
        Cut(answer_bytes=10),
    ],
    ids=str,
)
async def test_trouble_closes_the_delivery_ages_nobody_and_ends_by_itself(
    hasty_delivery: Delivery, fault: Action
) -> None:
    hasty_delivery.api.faults.add(fault, times=None)
    ids = await hasty_delivery.accept(*[f"d-{n}" for n in range(20)])
    await hasty_delivery.delivery_is(BreakerState.BACKING_OFF)
    await hasty_delivery.api.ledger.wait_for_requests(3)
    ids += await hasty_delivery.accept("later")
    assert {(await hasty_delivery.row(one)).attempts for one in ids} == {0}
    hasty_delivery.api.faults.clear()
    rows = await hasty_delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    await hasty_delivery.delivery_is(BreakerState.HEALTHY)


async def test_a_server_that_is_away_is_waited_for(quick_delivery: Delivery) -> None:
    await quick_delivery.api.close()
    ids = await quick_delivery.accept(*[f"d-{n}" for n in range(20)])
    await quick_delivery.delivery_is(BreakerState.BACKING_OFF)
    assert "Connect" in quick_delivery.relay.breaker.reason
    await quick_delivery.api.start()
    rows = await quick_delivery.ends(ids)
    assert {(row.attempts, row.state) for row in rows} == {(1, State.DELIVERED)}


async def test_a_delivery_in_trouble_stays_so_over_a_restart_and_asks_with_one_event(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    inngest_api.faults.add(ScriptedAnswer(500), times=None)
    async with delivering(tmp_path / "outbox.db", inngest_api, policies=QUICK) as delivery:
        ids = await delivery.accept(*[f"d-{n}" for n in range(50)])
        await delivery.delivery_is(BreakerState.BACKING_OFF)
    asked = len(inngest_api.ledger.requests)
    inngest_api.faults.clear()
    async with delivering(tmp_path / "outbox.db", inngest_api, policies=QUICK) as delivery:
        await delivery.ends(ids)
    assert [one.events for one in inngest_api.ledger.requests][asked : asked + 2] == [1, 2]
