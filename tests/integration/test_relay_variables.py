"""The variables of the relay: what each one changes in the requests that Inngest gets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from structlog.testing import capture_logs

from inngest_outbox.bootstrap import delivery
from inngest_outbox.bootstrap.process import make_http
from inngest_outbox.dev.fake_inngest.faults import Hang, ScriptedAnswer, Slow
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.model import Filter, State
from tests.support.confirmed_delivery import append_events, confirmed_delivery, event_for_inngest
from tests.support.storage import PATIENCE_SECONDS, Outbox, SqliteStorage, eventually


async def delivered(outbox: Outbox, count: int) -> None:
    wanted = Filter(state=State.DELIVERED, limit=count)
    await eventually(lambda: outbox.inspector.rows(wanted), lambda rows: len(rows) == count)


@pytest.mark.parametrize(
    ("changes", "least_events", "most_events", "most_bytes"),
    [
        ({"OUTBOX_BATCH_EVENTS": "7"}, 5, 7, 1024 * 1024),
        ({"OUTBOX_BATCH_BYTES": "1024"}, 1, 500, 1024),
    ],
)
async def test_a_request_has_at_most_so_many_events_and_bytes(
    tmp_path: Path,
    inngest_api: FakeInngest,
    changes: dict[str, str],
    least_events: int,
    most_events: int,
    most_bytes: int,
) -> None:
    async with SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        await append_events(outbox.intake, 60)
        async with confirmed_delivery(outbox, inngest_api, OUTBOX_CONFIRM="off", **changes):
            await delivered(outbox, 60)
    requests = inngest_api.ledger.requests
    assert least_events <= max(request.events for request in requests) <= most_events
    assert max(request.body_bytes for request in requests) <= most_bytes


async def test_events_of_as_many_traces_leave_in_few_requests(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    async with SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        for number in range(500):
            meta = Meta(trace=f"00-{number + 1:032x}-b7ad6b7169203331-01")
            await outbox.intake.append(msgspec.structs.replace(event_for_inngest(), meta=meta))
        async with confirmed_delivery(outbox, inngest_api, OUTBOX_CONFIRM="off"):
            await delivered(outbox, 500)
    requests = inngest_api.ledger.requests
    assert len(requests) <= 3
    assert sum(request.events for request in requests) == 500


async def test_so_many_requests_are_under_way_at_once(
    tmp_path: Path, inngest_api: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is answered. By default there would be four, and a lease would end after 40 s."""
    limits: list[int] = []
    monkeypatch.setattr(
        delivery, "make_http", lambda limit: limits.append(limit) or make_http(limit=limit)
    )
    inngest_api.faults.add(Hang(), times=None)
    changes = {"OUTBOX_SENDERS": "6", "OUTBOX_BATCH_EVENTS": "1", "OUTBOX_SEND_TIMEOUT": "300s"}
    async with SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        await append_events(outbox.intake, 20)
        async with confirmed_delivery(
            outbox, inngest_api, OUTBOX_CONFIRM="off", OUTBOX_DRAIN_SECONDS="0", **changes
        ) as relay:
            await inngest_api.ledger.wait_for_requests(6)
            assert relay.breaker.width == 6
            assert limits[0] >= 6 + 32  # where some hang, so many single requests are beside them
            claimed = await outbox.inspector.rows(Filter(state=State.DELIVERING))
            assert all(600 < (row.lease_in_seconds or 0) <= 620 for row in claimed)


async def test_a_request_that_is_not_answered_is_given_up_after_the_timeout(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    inngest_api.faults.add(Hang(), times=1)
    async with SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        [event] = await append_events(outbox.intake, 1)
        async with confirmed_delivery(
            outbox,
            inngest_api,
            OUTBOX_CONFIRM="off",
            OUTBOX_SEND_TIMEOUT="200ms",
            OUTBOX_DRAIN_SECONDS="60s",
        ):
            # Without the variable it would be given up after 30 s.
            await inngest_api.ledger.wait_for_id(event.id, timeout_seconds=20)


@web.middleware
async def hanging_questions(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "GET":
        await asyncio.Event().wait()
    return await handler(request)


async def test_a_question_that_is_not_answered_is_given_up_after_the_timeout_of_a_send(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    """One about a sent event, and one about an event that may have been sent long ago."""
    old = msgspec.structs.replace(event_for_inngest(), meta=Meta(restored=True))
    app = inngest_api.build_app()
    app.middlewares.append(hanging_questions)
    async with TestServer(app) as server, SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        inngest = SimpleNamespace(url=str(server.make_url("")).rstrip("/"))
        limits = {"OUTBOX_SEND_TIMEOUT": "200ms", "OUTBOX_DRAIN_SECONDS": "300s"}
        async with confirmed_delivery(outbox, inngest, **limits) as relay:
            await append_events(outbox.intake, 1)
            await eventually(lambda: relay.confirmation_fault)
            inngest_api.faults.add(ScriptedAnswer(503), times=None)
            await outbox.intake.append(old)
            await eventually(lambda: outbox.intake.find(old.id), lambda row: "24 h" in str(row))


@pytest.mark.parametrize(
    ("drain", "answered_after", "state"),
    [("20s", 0.5, State.DELIVERED), ("0", 300, State.DELIVERING)],
)
async def test_a_stop_waits_for_sends_so_long(
    tmp_path: Path, inngest_api: FakeInngest, drain: str, answered_after: float, state: State
) -> None:
    inngest_api.faults.add(Slow(seconds=answered_after))
    async with SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        [event] = await append_events(outbox.intake, 1)
        with capture_logs() as logged:
            async with confirmed_delivery(
                outbox, inngest_api, OUTBOX_CONFIRM="off", OUTBOX_DRAIN_SECONDS=drain
            ):
                await inngest_api.ledger.wait_for_requests(1)
        assert [line for line in logged if line["log_level"] == "error"] == []
        row = await outbox.intake.find(event.id)
        assert row
        assert row.state is state


async def test_requests_name_the_environment_and_take_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    seen: asyncio.Queue[str | None] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        seen.put_nowait(request.headers.get("x-inngest-env"))
        return web.json_response({"ids": ["01"], "status": 200})

    app = web.Application()
    app.router.add_post("/e/{key}", take)
    async with TestServer(app) as server, SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        await append_events(outbox.intake, 1)
        inngest = SimpleNamespace(url=str(server.make_url("")).rstrip("/"))
        async with confirmed_delivery(
            outbox, inngest, OUTBOX_CONFIRM="off", INNGEST_ENV="branch/a"
        ):
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await seen.get() == "branch/a"


async def test_the_second_key_is_used_where_inngest_refuses_the_first(tmp_path: Path) -> None:
    keys = {"INNGEST_EVENT_KEY": "first-key", "INNGEST_EVENT_KEY_FALLBACK": "second-key"}
    async with (
        FakeInngest(options=FakeOptions(keys={"second-key"})) as inngest,
        SqliteStorage(tmp_path / "outbox.db").open() as outbox,
    ):
        [event] = await append_events(outbox.intake, 1)
        async with confirmed_delivery(outbox, inngest, OUTBOX_CONFIRM="off", **keys):
            await inngest.ledger.wait_for_id(event.id)
