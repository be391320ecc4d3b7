"""Requests that can't be parsed or do not arrive whole, on the server that `serve` runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from inngest_outbox.web.server.admission import AdmissionPolicy
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.request_parser import HEADER_BYTES
from inngest_outbox.web.server.server import HttpServer, ServerPolicy
from tests.support.raw_http import connected, listening, send
from tests.support.storage import PATIENCE_SECONDS, eventually

SECRET = "tell-nobody"
FORM = {"status", "code", "error"}


LINE = "BadHttpMessage"
MALFORMED: dict[str, tuple[bytes, int, str, str | None]] = {
    "no HTTP": (b"\x16\x03\x01 tell-nobody\r\n\r\n", 405, "method_not_allowed", "BadHttpMethod"),
    "method": (
        b"TELL-NOBODY /read HTTP/1.1\r\nHost: a\r\n\r\n",
        *(405, "method_not_allowed", "BadHttpMethod"),
    ),
    "version": (
        b"GET /tell-nobody HTTP/9.9\r\nHost: a\r\n\r\n",
        *(400, "bad_request", "BadStatusLine"),
    ),
    "header": (b"GET / HTTP/1.1\r\nHost: a\r\ntell-nobody\r\n\r\n", 400, "bad_request", LINE),
    "no host": (b"GET / HTTP/1.1\r\nX: tell-nobody\r\n\r\n", 400, "bad_request", LINE),
    "length": (
        b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: tell-nobody\r\n\r\n",
        *(400, "bad_request", LINE),
    ),
    "size": (
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: tell-nobody" + b"x" * HEADER_BYTES + b"\r\n\r\n",
        *(431, "headers_too_large", "LineTooLong"),
    ),
    "line": (
        b"GET /tell-nobody?" + b"x" * HEADER_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        *(431, "headers_too_large", "LineTooLong"),
    ),
    "expect": (
        b"POST /read HTTP/1.1\r\nHost: a\r\nExpect: tell-nobody\r\n\r\n",
        *(417, "expectation_failed", None),
    ),
    "expect bytes": (
        b"POST /read HTTP/1.1\r\nHost: a\r\nExpect: tell-nobody \xff\r\n\r\n",
        *(417, "expectation_failed", None),
    ),
    "slow": (b"GET / HTTP/1.1\r\nTell-Nobody: ", 408, "headers_timeout", "HeadSecondsError"),
}


HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "outbox",
    "Content-Type": "application/json",
}
MORE = {405: {"Allow": "DELETE, GET, HEAD, OPTIONS, POST, PUT"}, 417: {"Connection": "close"}}


@pytest.mark.parametrize("head_seconds", [0.3])
@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_answered_in_the_one_form_and_quoted_nowhere(
    port, case, caplog, recorder
):
    raw, status, code, reason = MALFORMED[case]
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        answered, headers, body = await send(port, raw)
    assert answered == status
    assert set(json.loads(body)) == FORM
    assert json.loads(body)["code"] == code
    line = {"event": "malformed_request", "log_level": "info", "reason": reason}
    assert logs == ([{**line, "request_id": headers["X-Request-Id"]}] if reason else [])
    assert f'outbox_refused_total{{code="{code}"}} 1.0' in recorder.render()[0].decode()
    assert SECRET not in f"{headers}{body!r}{logs}{caplog.text}".lower()
    assert all(headers.pop(name) for name in ("X-Request-Id", "Date", "Content-Length"))
    assert headers == HEADERS | MORE.get(status, {})


async def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes(
    port, recorder, caplog
):
    caplog.set_level(logging.DEBUG)
    raw = b"PUT /refuse?tell-nobody HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    status, headers, _ = await send(port, raw)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert b'outbox_refused_total{code="method_not_allowed"} 1.0' in recorder.render()[0]
    assert SECRET not in caplog.text  # there is no other log of requests


async def test_a_fault_in_an_answer_that_has_begun_ends_it_there(port):
    with capture_logs() as logs:
        async with connected(port) as (reader, writer):
            writer.write(b"GET /begin HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\n5\r\nbegun\r\n")
    assert [line["event"] for line in logs] == ["request_failed"]


async def test_a_body_that_breaks_after_its_answer_is_no_fault_of_ours(port):
    head = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
    async with connected(port) as (reader, writer):
        writer.write(head)
        await reader.readuntil(b"}")
        writer.write(b"no size\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_a_stop_does_not_wait_for_a_client_that_still_sends_a_refused_body(server, port):
    server._shutdown_timeout = server.server._kwargs["lingering_time"] = 2 * PATIENCE_SECONDS
    async with connected(port) as (reader, writer):
        writer.write(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\nsome")
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        await server.cleanup()


async def test_a_client_that_goes_away_in_its_body_is_no_fault_of_ours(port, read_ended):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with capture_logs() as logs:
        writer.write(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await read_ended.wait()
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_a_stop_lets_a_request_that_has_begun_arrive_whole(server, port, read_began):
    async with connected(port) as (reader, writer):
        writer.write(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        await read_began.wait()
        [connection] = server.server.connections
        stopping = asyncio.create_task(server.cleanup())
        await eventually(lambda: connection._is_ending)
        writer.write(b" done")
        answer = await reader.read()
        await stopping
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"half done")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_answers_each_request_that_has_been_read(server, port, turns, count):
    async with connected(port) as (reader, _):
        [connection] = await eventually(lambda: server.server.connections)
        stopping = asyncio.create_task(server.cleanup())
        for _ in range(turns):
            await asyncio.sleep(0)
        is_read = not connection._close
        connection.data_received(
            b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwhole" * count
        )
        answer = await reader.read()
        await stopping
    assert answer.count(b"whole") == count * is_read


@pytest.mark.parametrize(("max_wait_seconds", "posts_at_work"), [(3600, 2), (0.01, 5)])
async def test_of_a_crowd_of_posts_some_run_for_a_moment_and_slow_clients_do_not_count(
    recorder, max_wait_seconds, posts_at_work
):
    at_work, let_go = [], asyncio.Event()

    async def work(request: web.Request) -> web.Response:
        at_work.append(request.path)
        if request.path != "/slow":
            await let_go.wait()
        return web.Response(body=await request.read())

    app = web.Application(middlewares=[error_middleware(recorder)])
    app.add_routes([web.post("/{any}", work), web.get("/seen", work)])
    policy = ServerPolicy(
        shutdown_seconds=1,
        admission=AdmissionPolicy(posts=2, post_wait_seconds=max_wait_seconds),
    )
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    get = b"GET /seen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(HttpServer(app, recorder, policy)))
        for _ in range(3):
            _, writer = await stack.enter_async_context(connected(port))
            writer.write(head % b"slow")
        posts = [asyncio.create_task(send(port, head % b"whole" + b"ok")) for _ in range(5)]
        seen = asyncio.create_task(send(port, get))
        await eventually(lambda: len(at_work) >= 4 + posts_at_work)
        await asyncio.sleep(0.05)
        assert Counter(at_work) == {"/slow": 3, "/whole": posts_at_work, "/seen": 1}
        let_go.set()
        assert [(await post)[0] for post in posts] == [200] * 5
        assert (await seen)[0] == 200
