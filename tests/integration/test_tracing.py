from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from inngest_outbox.bootstrap.otel import Tracing
from inngest_outbox.bootstrap.service import run_relay_alone
from inngest_outbox.bootstrap.store_part import run_store_process
from inngest_outbox.bootstrap.tracing import start_tracing
from inngest_outbox.bootstrap.web_part import run_front_process
from inngest_outbox.config.settings import Settings
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.model import Batch, Entry
from tests.support.remote_storage import unix_socket
from tests.support.service_client import Client, service_client
from tests.support.storage import PATIENCE_SECONDS, event, eventually

ROOT = Path(__file__).parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"
KEY = "0123456789abcdef"
TRACED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Traced:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(self.exporter)

    async def spans(self, name: str, count: int) -> Sequence[ReadableSpan]:
        provider = self.tracing._provider
        assert isinstance(provider, TracerProvider)

        async def found() -> list[ReadableSpan]:
            await asyncio.to_thread(provider.force_flush)
            return [one for one in self.exporter.get_finished_spans() if one.name == name]

        return await eventually(found, lambda seen: len(seen) >= count)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traced:
    """Every service of this test is traced into memory."""
    made = Traced()
    module = sys.modules["inngest_outbox.bootstrap.otel"]
    monkeypatch.setattr(module, "Tracing", lambda: made.tracing)
    return made


@contextlib.asynccontextmanager
async def signed_in(folder: Path, api: FakeInngest) -> AsyncIterator[Client]:
    """A client of a service with an endpoint for its traces."""
    given = {
        "AWS_S3_REGION": "eu-west-1",
        "AWS_S3_BUCKET": "documents",
        "INNGEST_DEV": api.url,
        "DEV_LOGIN": "1",
        "OUTBOX_EVENT_KEYS": f"cron:{KEY}",
        **TRACED,
    }
    async with service_client(folder, **given) as (_, client):
        answer = await client.post("/auth/dev-login", json={"email": "ada@example.com"})
        assert answer.status == 200
        yield client


async def post(client: Client, headers: Mapping[str, str]) -> str:
    answer = await client.post("/api/route", json={"documentName": "example"}, headers=headers)
    assert answer.status == 200
    return str((await answer.json())["eventId"])


async def test_a_send_links_to_the_append_within_the_callers_trace_and_no_span_is_personal(
    tmp_path: Path, traces: Traced, inngest_api: FakeInngest
) -> None:
    headers = {"traceparent": PARENT, "Idempotency-Key": "k"}
    async with signed_in(tmp_path, inngest_api) as client:
        event_id = await post(client, headers)
        [request] = await traces.spans("POST /api/route", 1)
        [append] = await traces.spans("outbox append", 1)
        [send] = await traces.spans("outbox send", 1)
        assert await post(client, headers) == event_id
        assert inngest_api.ledger.times(event_id) == 1
        await post(client, {"traceparent": "garbage"})
        await traces.spans("outbox send", 2)
        answer = await client.post("/api/route", data=b"{", headers={"Content-Type": "text/plain"})
        assert answer.status == 415
        *_, refused = await traces.spans("POST /api/route", 4)
        assert (await client.get("/example")).status == 404
        await traces.spans("GET unknown", 1)
    assert request.context.trace_id == int(TRACE, 16)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/route",
        "http.response.status_code": 200,
    }
    assert append.parent is not None
    assert append.parent.span_id == request.context.span_id
    assert append.attributes == {
        "messaging.message.id": event_id,
        "outbox.event_name": "documents/aws.index",
    }
    assert send.attributes is not None
    assert send.attributes["messaging.batch.message_count"] == 1
    assert send.attributes["outbox.claim"]
    kinds = (request.kind, append.kind, send.kind)
    assert kinds == (SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CLIENT)
    assert [link.context.span_id for link in send.links] == [append.context.span_id]
    assert [link.context.trace_id for link in send.links] == [int(TRACE, 16)]
    assert send.parent is None
    assert refused.attributes is not None
    assert refused.attributes["http.response.status_code"] == 415
    text = "".join(span.to_json() for span in traces.exporter.get_finished_spans())
    for secret in ("ada@example.com", "example", "cookie"):
        assert secret not in text


async def test_what_a_machine_sends_is_one_append_and_the_last_spans_leave_with_the_service(
    tmp_path: Path, inngest_api: FakeInngest, traces: Traced
) -> None:
    async with signed_in(tmp_path, inngest_api) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "k"}
        answers = [
            await client.post("/api/events", json=[{"name": "a/b"}] * 2, headers=headers)
            for _ in range(2)
        ]
        first, again = [(await answer.json())["eventIds"] for answer in answers]
        assert first == again
        [append, _] = await traces.spans("outbox append", 2)
        assert append.attributes is not None
        assert append.attributes["messaging.batch.message_count"] == 2
        await client.get("/healthz")
    last = [span.name for span in traces.exporter.get_finished_spans()]
    assert "GET /healthz" in last


@pytest.mark.parametrize("name", ["inngest-outbox", "ours"])
async def test_a_service_is_traced_under_its_name_or_the_one_that_is_set(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "ours":
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    traced = Traced()
    with traced.tracing.around_append([event()]):
        pass
    [span] = await traced.spans("outbox append", 1)
    assert span.resource.attributes["service.name"] == name


@pytest.mark.parametrize(("status", "is_error"), [(302, False), (499, False), (500, True)])
async def test_an_answer_from_500_on_is_an_error(
    aiohttp_client: Any, *, status: int, is_error: bool
) -> None:
    async def answer(request: web.Request) -> web.Response:
        del request
        if status == 302:
            raise web.HTTPFound("/elsewhere")
        return web.Response(status=status)

    traced = Traced()
    app = web.Application(middlewares=[traced.tracing.middleware])
    app.add_routes([web.get("/", answer)])
    await (await aiohttp_client(app)).get("/", allow_redirects=False)
    [span] = await traced.spans("GET /", 1)
    assert (span.status.status_code is StatusCode.ERROR) is is_error
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == status
    assert not span.events


async def test_a_send_has_128_links_at_most() -> None:
    contexts = [f"00-{trace:032x}-b7ad6b7169203331-01" for trace in range(1, 131)]
    entries = [Entry(1, "e", 0, "u", meta=Meta(trace=one)) for one in contexts]
    traced = Traced()
    with traced.tracing.around_send(Batch("c", (*entries, *entries), b"")):
        pass
    [send] = await traced.spans("outbox send", 1)
    assert [one.context.trace_id for one in send.links] == list(range(1, 129))


async def test_a_link_holds_over_a_restart(
    tmp_path: Path, inngest_api: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Traced(), Traced()
    module = sys.modules["inngest_outbox.bootstrap.otel"]
    monkeypatch.setattr(module, "Tracing", lambda: first.tracing)
    await inngest_api.close()
    async with signed_in(tmp_path, inngest_api) as client:
        await post(client, {"traceparent": PARENT})
        [append] = await first.spans("outbox append", 1)
    await inngest_api.start()
    monkeypatch.setattr(module, "Tracing", lambda: second.tracing)
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    given = {"OUTBOX_URL": outbox_url, "INNGEST_DEV": inngest_api.url, **TRACED}
    async with run_relay_alone(Settings.load(given)):
        [send, *_] = await second.spans("outbox send", 1)
    assert [link.context.span_id for link in send.links] == [append.context.span_id]


async def test_a_link_holds_between_processes(
    short_path: Path, inngest_api: FakeInngest, traces: Traced
) -> None:
    outbox_url, path = f"sqlite:///{short_path / 'outbox.db'}", short_path / "store"
    given = {"OUTBOX_URL": outbox_url, "INNGEST_DEV": inngest_api.url, **TRACED}
    settings = Settings.load({**given, "OUTBOX_EVENT_KEYS": f"cron:{KEY}"})
    with unix_socket(path) as listening:
        async with (
            run_store_process(settings, listening),
            run_front_process(settings, str(path)) as (app, _),
            TestClient(TestServer(app)) as client,
        ):
            headers = {"Authorization": f"Bearer {KEY}"}
            posted = await client.post("/api/events", json={"name": "a/b"}, headers=headers)
            assert posted.status == 200
            [append] = await traces.spans("outbox append", 1)
            [send] = await traces.spans("outbox send", 1)
    assert [link.context.span_id for link in send.links] == [append.context.span_id]


def test_an_endpoint_without_the_extra_is_said_and_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "inngest_outbox.bootstrap.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with start_tracing(Settings.load(TRACED)) as tracing:
        assert tracing is None
    assert "inngest-outbox[otel]" in capsys.readouterr().out


AWAY = """
import threading
from opentelemetry.sdk.trace.export import SpanExporter
from inngest_outbox.bootstrap.otel import Tracing
class Away(SpanExporter):
    def export(self, spans):
        threading.Event().wait()
tracing = Tracing(Away())
with tracing.around_append([]):
    pass
joined = []
threading.Thread.join = lambda thread, timeout=None: joined.append((timeout, thread.daemon))
tracing.close()
assert (3.0, True) in joined
assert all(one.daemon for one in threading.enumerate()[1:])  # none is waited for at the end
"""


def test_a_collector_that_is_away_does_not_hold_up_the_end_of_a_process() -> None:
    subprocess.run([sys.executable, "-c", AWAY], cwd=ROOT, check=True, timeout=PATIENCE_SECONDS)
