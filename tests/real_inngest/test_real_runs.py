"""The runs of events in both APIs, and what a function sees of its event."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from inngest_outbox.dev.fake_inngest.event_api import SEED_HEADER
from tests.real_inngest.answers import ANSWERS
from tests.real_inngest.functions import BATCH, ERROR
from tests.real_inngest.inngest_handle import Inngest, new_key, seed
from tests.support.storage import eventually


@pytest.mark.relayed
@pytest.mark.parametrize("case", ANSWERS["runs"], ids=lambda case: case["event"])
async def test_an_ended_run_is_shown_so(inngest: Inngest, app: str, case: dict[str, Any]) -> None:
    [ulid] = await inngest.send({"name": f"{app}/{case['event']}"})
    [run] = await inngest.ended(ulid)
    assert (run["status"], run["output"]) == (case["status"], case["output"])
    assert run["trigger"]["eventIds"] == [ulid]
    [old] = await inngest.old_ended(ulid)
    # A word of the first API's list may stay behind the end.
    assert old["status"] in (case["status"].capitalize(), "Running", "Scheduled")
    assert (old["run_id"], old["event_id"]) == (run["id"], ulid)
    assert old["output"] == ("" if app == "js4" else case["old"])
    shown = (await inngest.ask(f"/v1/runs/{run['id']}"))[1]["data"]
    assert (shown["run_id"], shown["output"]) == (run["id"], old["output"])


@pytest.mark.relayed
async def test_a_run_that_fails_shows_an_attempts_error_before_its_end(
    inngest: Inngest, app: str
) -> None:
    [ulid] = await inngest.send({"name": f"{app}/fails"})
    [run] = await eventually(
        lambda: inngest.runs(ulid), lambda runs: bool(runs) and "output" in runs[0]
    )
    assert (run["status"], "endedAt" in run) == ("RUNNING", False)
    assert run["output"]["error"]["message"] == ERROR["message"]
    [run] = await inngest.ended(ulid)
    assert run["status"] == "FAILED"
    error = run["output"]["error"]
    assert error["message"] == ERROR["message"]
    assert {"name", "stack"} <= error.keys()
    [old] = await inngest.old_ended(ulid)
    assert old["output"] == error


@pytest.mark.relayed
async def test_a_run_that_sleeps_runs_and_has_no_output(inngest: Inngest, app: str) -> None:
    [ulid] = await inngest.send({"name": f"{app}/sleeps"})
    run = await inngest.running(ulid)
    assert run["status"] in ("QUEUED", "RUNNING")
    assert not {"endedAt", "output"} & run.keys()
    [old] = await eventually(lambda: inngest.old_runs(ulid))
    assert old["ended_at"] is None


@pytest.mark.relayed
async def test_an_event_of_two_functions_has_two_runs(inngest: Inngest, app: str) -> None:
    [ulid] = await inngest.send({"name": f"{app}/fan"})
    runs = await inngest.ended(ulid, 2)
    assert {one["output"]["from"] for one in runs} == {"a", "b"}
    assert len(await inngest.old_ended(ulid, 2)) == 2


async def test_pages_of_runs_go_on_at_the_cursor(inngest: Inngest) -> None:
    [ulid] = await inngest.send({"name": "py/fan"})
    runs = await inngest.ended(ulid, 2)
    path = f"/api/v2/events/{ulid}/runs?limit=1"
    first = (await inngest.ask(path))[1]
    assert (first["page"]["hasMore"], first["data"][0]["id"]) == (True, runs[0]["id"])
    second = (await inngest.ask(f"{path}&cursor={first['page']['cursor']}"))[1]
    assert second["data"][0]["id"] == runs[1]["id"]
    assert "hasMore" not in second["page"]
    assert "output" not in second["data"][0]


@pytest.mark.relayed
async def test_a_cancelled_runs_end_lies_ten_seconds_ahead(inngest: Inngest, app: str) -> None:
    key = new_key()
    [ulid] = await inngest.send({"name": f"{app}/long", "data": {"key": key}})
    await inngest.running(ulid)
    await inngest.send({"name": f"{app}/stop", "data": {"key": key}})
    [run] = await inngest.ended(ulid)
    assert (run["status"], "output" in run) == ("CANCELLED", False)
    [old] = await inngest.old_ended(ulid)
    assert (old["status"], old["output"]) == ("Cancelled", {})
    ahead = datetime.fromisoformat(run["endedAt"]) - datetime.fromisoformat(old["ended_at"])
    assert timedelta(seconds=9) < ahead < timedelta(seconds=11)


@pytest.mark.relayed
@pytest.mark.parametrize("own", [{"id": "of the sender"}, {}], ids=["with an id", "without an id"])
async def test_a_function_sees_the_id_of_the_wire_else_the_ulid(
    inngest: Inngest, app: str, own: dict[str, str]
) -> None:
    own = own and {"id": new_key()}
    [ulid] = await inngest.send(
        {"name": f"{app}/echo", "data": {"n": 1}, "ts": 1795559419447} | own
    )
    [run] = await inngest.ended(ulid)
    seen = own.get("id", ulid)
    wanted = {"id": seen, "name": f"{app}/echo", "data": {"n": 1}, "ts": 1795559419447}
    assert run["output"] == wanted


@pytest.mark.relayed
@pytest.mark.parametrize("own", [{"id": "of the sender"}, {}], ids=["with an id", "without an id"])
async def test_a_failures_handler_sees_the_same_id(
    inngest: Inngest, app: str, own: dict[str, str]
) -> None:
    own = own and {"id": new_key()}
    [ulid] = await inngest.send({"name": f"{app}/fails", "data": {"n": 1}} | own)
    [run] = await inngest.ended(ulid)

    async def told() -> dict[str, Any] | None:
        told = [one["data"] for one in await inngest.page(f"name={app}/failed&limit=51")]
        return next((one for one in told if one["run_id"] == run["id"]), None)

    failed = await eventually(told)
    assert failed is not None
    assert failed["event"]["id"] == own.get("id", ulid)
    assert (failed["event"]["name"], failed["event"]["data"]) == (f"{app}/fails", {"n": 1})
    assert failed["error"]["message"] == ERROR["message"]


@pytest.mark.relayed
async def test_an_event_that_a_function_sends_has_the_id_that_it_was_answered(
    inngest: Inngest, app: str
) -> None:
    [ulid] = await inngest.send({"name": f"{app}/send", "data": {"n": 1}})
    [run] = await inngest.ended(ulid)
    [sent] = run["output"]["ids"]
    [echo] = await inngest.ended(sent)
    assert (echo["output"]["id"], echo["output"]["data"]) == (sent, {"n": 1})


@pytest.mark.relayed
async def test_one_id_starts_a_function_once(inngest: Inngest, app: str) -> None:
    event = {"name": f"{app}/echo", "id": new_key()}
    [first] = await inngest.send(event)
    started = await inngest.ended(first)
    [second] = await inngest.send(event)
    [other] = await inngest.send(event | {"name": f"{app}/text"})
    await inngest.ended(other)
    # The service answers a repeat with the ULID of the first time.
    assert await inngest.runs(second) == (started if second == first else [])


async def test_one_seed_starts_a_function_once(inngest: Inngest) -> None:
    [first, witness] = [f'{{"name": "py/{name}"}}' for name in ("echo", "text")]
    headers = {SEED_HEADER: seed(0)}
    [ulid] = (await inngest.post(first, headers))[1]["ids"]
    await inngest.ended(ulid)
    await inngest.post(first, headers)
    [other] = (await inngest.post(witness))[1]["ids"]
    await inngest.ended(other)
    assert len(await inngest.runs(ulid)) == 1


@pytest.mark.relayed
async def test_a_batch_is_the_run_of_each_of_its_events(inngest: Inngest, app: str) -> None:
    given = await inngest.send(*({"name": f"{app}/batch"} for _ in range(BATCH)))
    runs = [(await inngest.ended(ulid))[0] for ulid in given]
    assert len({one["id"] for one in runs}) == 1
    assert sorted(runs[0]["output"]["ids"]) == sorted(given)
    assert runs[0]["trigger"]["isBatch"] is True
    [first] = runs[0]["trigger"]["eventIds"]
    # The first API knows the run of the first one only.
    await inngest.old_ended(first)
    assert [len(await inngest.old_runs(ulid)) for ulid in given if ulid != first] == [0, 0]


async def test_a_batch_that_is_not_full_runs_when_its_time_is_over(inngest: Inngest) -> None:
    [ulid] = await inngest.send({"name": "py/batch", "id": new_key()})
    [run] = await inngest.ended(ulid)
    assert len(run["output"]["ids"]) == 1


@pytest.mark.relayed
async def test_of_debounced_events_one_runs(inngest: Inngest, app: str) -> None:
    key = new_key()
    event = {"name": f"{app}/debounce", "data": {"key": key}}
    given = [(await inngest.send(event))[0] for _ in range(3)]

    async def runs() -> list[dict[str, Any]]:
        return [run for ulid in given for run in await inngest.runs(ulid)]

    # Events of the same moment are scheduled side by side: the last one sent need not be it.
    [run] = await eventually(runs, lambda found: bool(found) and "endedAt" in found[0])
    assert run["output"]["id"] in given
    assert len(await runs()) == 1
