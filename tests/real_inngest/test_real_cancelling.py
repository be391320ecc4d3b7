"""Events that cancel runs, and events that runs wait for, by the moment in their ULIDs.

A run's ULID has the moment of its start. A lead of 0 is the moment of the sending.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.real_inngest.answers import ANSWERS
from tests.real_inngest.inngest_handle import Inngest, new_key
from tests.support.storage import eventually

CANCELLED, RUNNING = "CANCELLED", "RUNNING"


def named(case: dict[str, Any]) -> str:
    return " ".join(str(value) for value in case.values())


def sent_as_they_are(name: str) -> list[dict[str, Any]]:
    return [case for case in ANSWERS[name] if case["lead"] is None]


@pytest.mark.parametrize("case", ANSWERS["cancel"], ids=named)
async def test_a_run_is_cancelled_by_an_event_with_a_higher_ulid(
    inngest: Inngest, case: dict[str, Any]
) -> None:
    await start_and_cancel(inngest, case)


@pytest.mark.relayed(only=True)
@pytest.mark.parametrize("case", sent_as_they_are("cancel"), ids=named)
async def test_through_the_service_a_run_is_cancelled_as_without_it(
    inngest: Inngest, case: dict[str, Any]
) -> None:
    await start_and_cancel(inngest, case)


@pytest.mark.relayed(only=True)
@pytest.mark.parametrize("case", ANSWERS["outage"], ids=named)
async def test_a_cancel_event_out_of_an_outage_ends_runs_that_began_before_it(
    inngest: Inngest, case: dict[str, Any]
) -> None:
    data = {"data": {"key": new_key()}}
    async with contextlib.AsyncExitStack() as outage:
        if case["paused_before"] == "start":
            await outage.enter_async_context(inngest.paused_delivery())
        [ulid] = await inngest.send({"name": "py/long"} | data)
        if case["paused_before"] == "cancel":
            await inngest.running(ulid)
            await outage.enter_async_context(inngest.paused_delivery())
        await inngest.send({"name": "py/stop"} | data)
        while case["paused_before"] == "start" and (await inngest.view(ulid))["state"] != "pending":
            # The service heard of the pause later than this one's delivery.
            data = {"data": {"key": new_key()}}
            [ulid] = await inngest.send({"name": "py/long"} | data)
            await inngest.send({"name": "py/stop"} | data)
    await prove_end(inngest, ulid, cancelled=case["cancelled"])


@pytest.mark.relayed
async def test_a_run_of_the_future_is_queued_and_can_be_cancelled(inngest: Inngest) -> None:
    data = {"data": {"key": new_key()}}
    start = {"name": "py/long", "ts": int(time.time() * 1000) + 60_000}
    [ulid] = await inngest.send(start | data)
    assert (await inngest.running(ulid))["status"] == "QUEUED"
    await inngest.send({"name": "py/stop"} | data)
    await prove_end(inngest, ulid, cancelled=True)


async def start_and_cancel(inngest: Inngest, case: dict[str, Any]) -> None:
    data = {"data": {"key": new_key()}}
    start, cancel = {"name": "py/long"} | data, {"name": "py/stop"} | data
    order = [start, cancel] if case["order"] == "start cancel" else [cancel, start]
    given = await sent(inngest, order, case)
    ulid = given[order.index(start)]
    await prove_end(inngest, ulid, cancelled=case["cancelled"])


async def prove_end(inngest: Inngest, ulid: str, *, cancelled: bool) -> None:
    """Prove that the run of `ulid` is cancelled, or goes on."""
    if cancelled:
        assert (await inngest.ended(ulid))[0]["status"] == CANCELLED
        return
    await inngest.running(ulid)
    await another_is_cancelled(inngest)
    assert (await inngest.runs(ulid))[0]["status"] == RUNNING


async def sent(
    inngest: Inngest, events: Sequence[dict[str, object]], case: dict[str, Any]
) -> list[str]:
    """Both in one request, or the second one once the first one's run is seen."""
    lead = case["lead"]
    if case.get("one_request"):
        return await inngest.send(*events, lead_ms=lead)
    [first] = await inngest.send(events[0], lead_ms=lead)
    if events[0]["name"] != "py/stop":
        await inngest.running(first)
    return [first, *await inngest.send(events[1], lead_ms=lead)]


async def another_is_cancelled(inngest: Inngest) -> None:
    """A witness: an earlier cancel event that had worked would have been seen by now."""
    data = {"data": {"key": new_key()}}
    [witness] = await inngest.send({"name": "py/long"} | data)
    await inngest.running(witness)
    await inngest.send({"name": "py/stop"} | data)
    await inngest.ended(witness)


@pytest.mark.parametrize("case", ANSWERS["latest_wins"], ids=named)
async def test_a_function_that_its_own_trigger_cancels(
    inngest: Inngest, case: dict[str, Any]
) -> None:
    await trigger_twice(inngest, case)


@pytest.mark.relayed(only=True)
@pytest.mark.parametrize("case", sent_as_they_are("latest_wins"), ids=named)
async def test_through_the_service_the_latest_wins_as_without_it(
    inngest: Inngest, case: dict[str, Any]
) -> None:
    await trigger_twice(inngest, case)


async def trigger_twice(inngest: Inngest, case: dict[str, Any]) -> None:
    event = {"name": "py/latest", "data": {"key": new_key()}}
    given = await sent(inngest, [event, event], case)
    assert [(await inngest.ended(ulid))[0]["status"] for ulid in given] == case["statuses"]


@pytest.mark.parametrize("lead_ms", ANSWERS["wait"])
async def test_a_run_waits_for_an_event_whatever_its_ulid_says(
    inngest: Inngest, app: str, lead_ms: int | None
) -> None:
    data = {"data": {"key": new_key()}}
    [ulid] = await inngest.send({"name": f"{app}/wait"} | data)
    await inngest.running(ulid)
    awaited: list[str] = []

    # A run runs before it waits.
    async def sent_again() -> list[dict[str, Any]]:
        awaited.extend(await inngest.send({"name": f"{app}/go"} | data, lead_ms=lead_ms))
        return await inngest.runs(ulid)

    [run] = await eventually(sent_again, lambda runs: "endedAt" in runs[0])
    assert run["output"]["got"] in awaited
