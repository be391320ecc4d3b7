"""Alarms are told once when they are raised and once when they are over, signed, to whoever asks.

A receiver that hangs, refuses or redirects holds up nobody.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import aiohttp
import inngest as sdk
import msgspec
import pytest
from aiohttp import web
from inngest.experimental import mocked

from inngest_outbox.alarms.alarm_watch import ALARMS
from inngest_outbox.alarms.changes import Notice
from inngest_outbox.alarms.targets import AlarmEvents, Webhook
from inngest_outbox.dev.fake_inngest.faults import TooLarge
from inngest_outbox.dev.fake_inngest.functions import Function
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.errors import TooManyPendingError
from inngest_outbox.outbox.model import Filter, Named, Row, State
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.relay.relay import Relay
from inngest_outbox.runs.turn import SCOPE
from tests.support.fleet import ROOT
from tests.support.storage import Outbox, eventually
from tests.support.watched_service import SECRET, Receiver, post, receiver, watched_service

DOOMED = "reports/doomed"
T = 1_800_000_300_045  # 2027-01-15T08:05:00.045Z


@pytest.fixture
async def hearing() -> AsyncIterator[Receiver]:
    async with receiver() as taking:
        yield taking


async def told(hearing: Receiver, alarm: str, changes: list[str]) -> None:
    await eventually(
        lambda: hearing.told(alarm), lambda seen: seen == [f"outbox.alarm.{one}" for one in changes]
    )


async def requests(hearing: Receiver, count: int) -> None:
    await eventually(lambda: hearing.requests, lambda seen: seen >= count)


async def one_dead(outbox: Outbox, inngest: FakeInngest) -> None:
    """A dead event, which is too large for Inngest."""
    inngest.faults.add(TooLarge(max_bytes=2_000), times=None)
    await post(outbox.intake, DOOMED, documentName="x" * 2_000)


async def rows(outbox: Outbox, state: State, name: str) -> list[Row]:
    return await outbox.inspector.rows(Filter(state=state, name=name))


async def test_a_change_is_told_once_over_restarts(
    path: Path, inngest: FakeInngest, hearing: Receiver
) -> None:
    alarms = {"ALARM_URL": hearing.url, "ALARM_SECRET": SECRET}
    async with watched_service(path, inngest.url, **alarms) as part:
        await one_dead(part.outbox, inngest)
        await told(hearing, "dead", ["raised"])
        await eventually(
            lambda: part.outbox.scopes.load_scope(SCOPE, ALARMS),
            lambda kept: bool(kept) and not kept.get("untold"),
        )
    async with watched_service(path, inngest.url, **alarms) as part:
        [dead] = await rows(part.outbox, State.DEAD, DOOMED)
        await part.outbox.repairs.discard(Named((dead.id,)), actor="test")
        await told(hearing, "dead", ["raised", "cleared"])
    data = hearing.alarms[0]["data"]
    assert (data["severity"], data["message"]) == (
        "warning",
        "1 dead (see `outbox list --state dead`)",
    )
    assert len(set(hearing.ids)) == 2


async def test_the_watches_have_ended_when_delivery_ends(
    path: Path, inngest: FakeInngest, hearing: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their connections are closed then, and the last sends may take their time."""
    left, stop, close = list[set[str]](), Relay.stop, aiohttp.ClientSession.close

    async def stopping(relay: Relay) -> None:
        left.append({task.get_name() for task in asyncio.all_tasks()})
        await stop(relay)

    async def closing(session: aiohttp.ClientSession) -> None:
        left.append({task.get_name() for task in asyncio.all_tasks()})
        await close(session)

    monkeypatch.setattr(Relay, "stop", stopping)
    monkeypatch.setattr(aiohttp.ClientSession, "close", closing)
    alarms = {"ALARM_URL": hearing.url, "ALARM_SECRET": SECRET}
    async with watched_service(path, inngest.url, **alarms):
        assert {"run-watch", "alarm-watch"} <= {task.get_name() for task in asyncio.all_tasks()}
    *_, watches, relay, confirmer, _, _ = left  # and the connections of sends
    assert not watches & {"run-watch", "alarm-watch"}
    assert "confirmer" in relay
    assert not relay & {"relay", "run-watch", "alarm-watch"}
    assert "confirmer" not in confirmer


@pytest.mark.parametrize("trouble", ["hangs", "refuses", "redirects"])
async def test_a_receiver_in_trouble_holds_up_nobody_and_is_told_later(
    path: Path, inngest: FakeInngest, hearing: Receiver, trouble: str
) -> None:
    async with receiver() as elsewhere:
        answers = {
            "refuses": lambda: web.Response(status=500),
            "redirects": lambda: web.Response(status=307, headers={"Location": elsewhere.url}),
        }
        hearing.hangs = trouble == "hangs"
        hearing.answer = answers.get(trouble, web.Response)
        alarms = {"ALARM_URL": hearing.url, "ALARM_SECRET": SECRET}
        async with watched_service(path, inngest.url, **alarms) as part:
            await one_dead(part.outbox, inngest)
            await requests(hearing, 1)
            await post(part.outbox.intake, "reports/well", 20)
            await eventually(
                lambda: rows(part.outbox, State.DELIVERED, "reports/well"),
                lambda found: len(found) == 20,
            )
            hearing.hangs, hearing.answer = False, web.Response
            await requests(hearing, 2)
            await told(hearing, "dead", ["raised"] * (1 if trouble == "hangs" else 2))
        assert len(set(hearing.ids)) == 1
        assert elsewhere.requests == 0


async def test_a_store_that_takes_no_events_and_a_name_without_runs_are_told(
    path: Path,
    inngest: FakeInngest,
    hearing: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SqliteOutbox, "failure", "The disk is full.")
    types = tmp_path / "types.yaml"
    types.write_text("types: [{name: a/b, path: /api/a, body: {type: object}, expects_run: true}]")
    changes = {
        "ALARM_URL": hearing.url,
        "ALARM_SECRET": SECRET,
        "EVENT_TYPES_FILE": str(types),
        "OUTBOX_NO_RUN_AFTER": "1s",
    }
    inngest.runs.declare(Function(id="one", trigger="nowhere"))
    async with watched_service(path, inngest.url, **changes) as part:
        await post(part.outbox.intake, "a/b")
        for alarm in ("not_stored", "no_runs a/b"):
            await told(hearing, alarm, ["raised"])


async def test_alarms_are_events_that_count_in_no_alarm(path: Path, inngest: FakeInngest) -> None:
    inngest.runs.declare(Function(id="alarm", trigger="outbox/alarm"))
    async with watched_service(path, inngest.url, ALARM_URL="inngest") as part:
        await one_dead(part.outbox, inngest)
        [row] = await eventually(lambda: rows(part.outbox, State.DELIVERED, "outbox/alarm"))
        stored = await part.outbox.inspector.payload(row.id)
    event = json.loads(stored or b"")
    assert (event["data"]["alarm"], event["data"]["state"]) == ("dead", "raised")


NOTICE = Notice("alarm_1", "dead", "raised", "warning", "1 dead", 1_800_000_000_123, T, 3, T + 1)


@pytest.mark.parametrize(("status", "fault"), [(200, None), (299, None), (300, "HTTP 300")])
async def test_a_webhook_gets_the_change_as_json(
    hearing: Receiver, status: int, fault: str | None
) -> None:
    hearing.answer = lambda: web.Response(status=status)
    async with aiohttp.ClientSession() as http:
        assert await Webhook(http, hearing.url, SECRET, 5.0).tell(NOTICE) == fault
    data = {"id": "alarm_1", "alarm": "dead", "state": "raised", "severity": "warning"}
    times = {"message": "1 dead", "since": 1_800_000_000_123, "at": T}
    assert (hearing.ids, hearing.content_types) == (["alarm_1"], ["application/json"])
    assert hearing.alarms == [
        {
            "type": "outbox.alarm.raised",
            "timestamp": "2027-01-15T08:05:00.045+00:00",
            "data": {**data, **times},
        }
    ]


async def test_a_webhook_that_hangs_or_is_away_has_not_taken_the_change(hearing: Receiver) -> None:
    hearing.hangs = True
    async with aiohttp.ClientSession() as http:
        assert await Webhook(http, hearing.url, SECRET, 0.05).tell(NOTICE) == "TimeoutError"
        away = Webhook(http, "http://127.0.0.1:9/", SECRET, 5.0)
        assert await away.tell(NOTICE) == "ClientConnectorError"


async def test_an_alarm_that_is_told_twice_is_one_event(tmp_path: Path) -> None:
    limits = {"max_pending": 1, "max_pending_per_user": 1}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        events = AlarmEvents(outbox.intake)
        assert [await events.tell(NOTICE), await events.tell(NOTICE)] == [None, None]
        other = msgspec.structs.replace(NOTICE, id="alarm_2")
        assert await events.tell(other) == str(TooManyPendingError())
        [row] = await outbox.inspector.rows(Filter())
        payload = json.loads(await outbox.inspector.payload(row.id) or b"")
    assert await events.tell(other) == "The outbox is not open."
    assert (row.name, row.owner, row.user_id) == ("outbox/alarm", "outbox alarm", "alarm")
    assert (payload["data"]["id"], payload["data"]["since"]) == ("alarm_1", 1_800_000_000_123)
    assert time.time() * 1000 - 60_000 < payload["ts"] <= time.time() * 1000


@pytest.fixture
def example() -> ModuleType:
    place = ROOT / "examples" / "alarms" / "alarm_function.py"
    spec = importlib.util.spec_from_file_location("alarm_function", place)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_example_tells_slack_and_pagerduty_in_their_formats_until_they_take_it(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, object]] = []
    statuses = [302, 500, 299, 202, 202]

    async def take(request: web.Request) -> web.Response:
        taken.append((f"{request.method} {request.path}", json.loads(await request.text() or "0")))
        return web.Response(status=statuses.pop(0), headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"{origin}/services/T/B/X")
    monkeypatch.setenv("PAGERDUTY_ROUTING_KEY", "r" * 32)
    monkeypatch.setenv("PAGERDUTY_URL", origin)
    alarm = {"alarm": "dead", "state": "raised", "severity": "warning", "message": "<1> & more"}
    over = {**alarm, "state": "cleared"}

    def trigger(data: dict[str, str]) -> mocked.Status:
        event = sdk.Event(name="outbox/alarm", data=data)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return mocked.trigger(example.tell_alarm, event, mocked.Inngest(app_id="alarms")).status
        finally:
            loop.close()

    try:
        assert await asyncio.to_thread(trigger, alarm) is mocked.Status.COMPLETED
        monkeypatch.delenv("PAGERDUTY_ROUTING_KEY")
        assert await asyncio.to_thread(trigger, over) is mocked.Status.COMPLETED
    finally:
        await runner.cleanup()
    text = "Outbox alarm raised: &lt;1&gt; &amp; more"
    slack = ("POST /services/T/B/X", {"text": f":rotating_light: {text}"})
    incident = {
        "routing_key": "r" * 32,
        "event_action": "trigger",
        "dedup_key": "outbox dead",
        "payload": {"summary": "Outbox: <1> & more", "source": "outbox", "severity": "warning"},
    }
    cleared = {"text": f":white_check_mark: {text.replace('raised', 'cleared')}"}
    assert taken == [slack, slack, slack, ("POST /v2/enqueue", incident), (slack[0], cleared)]


def test_the_example_resolves_keeps_to_pagerdutys_bounds_and_is_tried_ten_times_again(
    example: ModuleType,
) -> None:
    alarm = {"alarm": "a" * 256, "state": "raised", "severity": "warning", "message": "m" * 1024}
    long = example.pagerduty_event(alarm, "r")
    assert (len(long["dedup_key"]), len(long["payload"]["summary"])) == (255, 1024)
    assert example.pagerduty_event({**alarm, "state": "cleared"}, "r") == {
        "routing_key": "r",
        "event_action": "resolve",
        "dedup_key": long["dedup_key"],
    }
    made = example.tell_alarm.get_config("http://w").main
    retries = made.steps["step"].retries.attempts
    assert (made.triggers[0].event, retries) == ("outbox/alarm", 10)
    assert example.PAGERDUTY_URL == "https://events.pagerduty.com"
