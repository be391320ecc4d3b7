"""What the service shows of events that it sent: their state and their runs."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest

from tests.real_inngest.functions import ERROR
from tests.real_inngest.inngest_handle import Inngest, new_key
from tests.real_inngest.servers import NO_RUN_SECONDS
from tests.support.storage import eventually

pytestmark = pytest.mark.relayed(only=True)

KINDS = {"object": 1, "fails": 1, "long": 1, "sleeps": 1, "fan": 2}
EACH = 40
AT_ONCE = 4


async def test_an_events_runs_are_shown_as_inngest_shows_them(inngest: Inngest, app: str) -> None:
    names = ("echo", "number", "text", "nothing", "sleeps", "fails", "fan")
    await asyncio.gather(*(shown_as_told(inngest, app, name) for name in names))


async def shown_as_told(inngest: Inngest, app: str, name: str) -> None:
    [ulid] = await inngest.send({"name": f"{app}/{name}", "id": new_key()})
    runs = await inngest.ended(ulid, KINDS.get(name, 1))
    view = await eventually(lambda: inngest.view(ulid), lambda view: view["final"])
    assert (view["state"], view["inngestId"]) == ("delivered", ulid)
    assert shown(view) == [told(run) for run in sorted(runs, key=lambda run: run["id"])]


async def test_an_event_of_no_function_is_delivered_without_a_run(inngest: Inngest) -> None:
    [ulid] = await inngest.send({"name": "py/unknown"})
    view = await eventually(lambda: inngest.view(ulid), lambda view: view["final"])
    assert (view["state"], view["run"], view["otherRuns"]) == ("delivered", None, [])
    assert (view["noRun"], view["idUsed"]) == (True, False)


async def test_an_event_whose_id_another_sender_used_says_so(inngest: Inngest) -> None:
    event = {"name": "py/echo", "id": new_key()}
    other = await inngest.send_past_the_service(event)
    await inngest.ended(other)
    [ulid] = await inngest.send(event)
    view = await eventually(lambda: inngest.view(ulid), lambda view: view["final"])
    assert (view["state"], view["noRun"], view["idUsed"]) == ("delivered", True, True)
    assert (await inngest.outbox("show", ulid))["idUsedBy"] == other


async def test_an_event_that_ran_is_not_said_to_have_a_used_id(inngest: Inngest) -> None:
    """Inngest runs what comes first, though another sender's ULID may be the lower one."""
    event = {"name": "py/echo", "id": new_key()}
    [ulid] = await inngest.send(event)
    [run] = await inngest.ended(ulid)
    other = await inngest.send_past_the_service(event, lead_ms=-60_000)
    await eventually(lambda: inngest.event(other))
    shown = await inngest.outbox("show", ulid)
    assert ([one["id"] for one in shown["runs"]], shown["idUsedBy"]) == ([run["id"]], None)


async def test_names_are_told_rightly_within_a_minute_after_their_time(inngest: Inngest) -> None:
    """One that is registered, one that fails, one with a rate limit, and one without a function."""
    for _ in range(3):  # a slot of the watch apart
        for name in ("object", "fails", "limited", "wanted", "unknown"):
            [ulid] = await inngest.send({"name": f"py/{name}"})
        await eventually(
            lambda ulid=ulid: inngest.view(ulid), lambda view: view["state"] == "delivered"
        )
        await asyncio.sleep(1.5)
    began_at = time.monotonic()

    async def names() -> dict[str, Any]:
        await asyncio.sleep(0.5)
        told = (await inngest.outbox("stats"))["names"]
        return {one["name"].partition("/")[2]: one for one in told}

    def are_right(known: dict[str, Any]) -> bool:
        return (
            {"object", "fails", "limited", "wanted", "unknown"} <= known.keys()
            and known["object"]["outcomes"].get("completed", 0) > 0
            and known["fails"]["outcomes"].get("failed", 0) > 0
            and known["limited"]["sampled"] > known["limited"]["withRun"] > 0
            and known["wanted"]["noRunSince"] is not None
        )

    known = await eventually(names, are_right)
    print(f"\ntold {time.monotonic() - began_at - NO_RUN_SECONDS:.0f} s after the time")
    missing = {name for name, one in known.items() if one["noRunSince"] is not None}
    assert missing == {"wanted"}
    assert known["limited"]["expected"] is False
    assert known["unknown"]["withRun"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_two_hundred_runs_of_five_kinds_are_seen_soon_after_their_end(
    inngest: Inngest,
) -> None:
    """Prints, for each kind, how long after Inngest's own API the view has its end and output."""
    for name, count in KINDS.items():
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(name: str = name, count: int = count, turns: Any = turns) -> float:
            async with turns:
                return await seconds_to_the_view(inngest, name, count)

        seconds = await asyncio.gather(*(one() for _ in range(EACH)))
        late = [f"{value:.2f}" for value in seconds if value > 2]
        print(f"\n{name}: median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s")
        assert not late


async def seconds_to_the_view(inngest: Inngest, name: str, count: int) -> float:
    data = {"key": new_key()}
    [ulid] = await inngest.send({"name": f"py/{name}", "data": data})
    if name == "long":
        await inngest.running(ulid)
        await inngest.send({"name": "py/stop", "data": data})
    watching = asyncio.create_task(seen_at(inngest, ulid, count))
    runs = await inngest.ended(ulid, count)
    ended_at = time.monotonic()
    view, seen = await watching
    assert shown(view) == [told(run) for run in sorted(runs, key=lambda run: run["id"])]
    return seen - ended_at


async def seen_at(inngest: Inngest, ulid: str, count: int) -> tuple[dict[str, Any], float]:
    """The view that has the ends of so many runs, and its moment."""
    view = await eventually(
        lambda: inngest.view(ulid),
        lambda view: len(shown(view)) == count and all(run["ended"] for run in shown(view)),
    )
    return view, time.monotonic()


def shown(view: dict[str, Any]) -> list[dict[str, Any]]:
    runs = [view["run"], *view["otherRuns"]] if view["run"] else []
    return [
        {
            "id": run["id"],
            "status": run["status"],
            "ended": run["endedAt"] is not None,
            "output": run["output"],
        }
        for run in runs
    ]


def told(run: dict[str, Any]) -> dict[str, Any]:
    """A run of Inngest's API, as the view has it: of an error its name and message."""
    output = None if run["status"] == "CANCELLED" else run.get("output")
    if run["status"] == "FAILED":
        output = {name: output["error"][name] for name in ("name", "message")}
        assert output["message"] == ERROR["message"]
    return {"id": run["id"], "status": run["status"].lower(), "ended": True, "output": output}
