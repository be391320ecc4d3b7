"""Requests that can't be parsed or do not arrive whole, on the server that `serve` runs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
from collections import Counter

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from service.errors import NotFoundError
from service.observe.metrics import PrometheusRecorder
from service.web.body import read_body
from service.web.middleware import error_middleware
from service.web.request_parser import RequestLimits
from service.web.server import HttpServer, ServerPolicy

SECRET = "tell-nobody"
MAX_HEADER_BYTES = RequestLimits().header
MAX_HEAD_BYTES = RequestLimits().head
FORM = {"status", "code", "error"}


@pytest.fixture
def read_began() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def read_ended() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def recorder() -> PrometheusRecorder:
    return PrometheusRecorder()


@pytest.fixture
async def server(read_began, read_ended, recorder):
    async def read(request: web.Request) -> web.Response:
        read_began.set()
        try:
            return web.Response(body=await read_body(request, max_bytes=1024 * 1024))
        finally:
            read_ended.set()

    async def raw(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def refuse(request: web.Request) -> web.Response:
        raise NotFoundError

    app = web.Application(middlewares=[error_middleware(recorder)])
    app.add_routes([web.post("/read", read), web.post("/raw", raw), web.get("/refuse", refuse)])
    policy = ServerPolicy(shutdown_seconds=5, head_seconds=0.3)
    server = HttpServer(app, recorder, policy)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    yield server
    await server.cleanup()


@pytest.fixture
def port(server) -> int:
    return server.addresses[0][1]


async def send(port: int, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


MALFORMED = {
    "no HTTP": (b"\x16\x03\x01 tell-nobody\r\n\r\n", 405, "method_not_allowed"),
    "method": (b"TELL-NOBODY /read HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    "version": (b"GET /tell-nobody HTTP/9.9\r\nHost: a\r\n\r\n", 400, "bad_request"),
    "header": (b"GET / HTTP/1.1\r\nHost: a\r\ntell-nobody\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET / HTTP/1.1\r\nX: tell-nobody\r\n\r\n", 400, "bad_request"),
    "length": (
        b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: tell-nobody\r\n\r\n",
        400,
        "bad_request",
    ),
    "size": (
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: tell-nobody" + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "expect": (
        b"POST /read HTTP/1.1\r\nHost: a\r\nExpect: tell-nobody\r\nConnection: close\r\n\r\n",
        417,
        "expectation_failed",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_answered_in_the_one_form_and_quoted_nowhere(
    port, case, caplog
):
    raw, status, code = MALFORMED[case]
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        answered, headers, body = await send(port, raw)
    assert answered == status
    assert set(json.loads(body)) == FORM
    assert json.loads(body)["code"] == code
    assert headers["X-Request-Id"]
    assert ("Allow" in headers) == (status == 405)
    assert SECRET not in f"{headers}{body!r}{logs}{caplog.text}".lower()


async def test_the_log_has_the_request_id_of_a_malformed_request(port):
    with capture_logs() as logs:
        _, headers, _ = await send(port, b"GET / HTTP/9.9\r\n\r\n")
    [line] = logs
    assert line["request_id"] == headers["X-Request-Id"]


async def test_a_header_of_32_kib_is_read(port):
    head = b"GET /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: "
    status, _, _ = await send(port, head + b"x" * (MAX_HEADER_BYTES - 100) + b"\r\n\r\n")
    assert status == 404


async def test_a_head_may_have_64_kib_in_all(port):
    def head(size: int) -> bytes:
        start = b"GET /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        lines = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 30_000) for n in range(2))
        padding = size - len(start) - len(lines) - len(b"X-Pad: \r\n\r\n")
        return start + lines + b"X-Pad: " + b"x" * padding + b"\r\n\r\n"

    assert (await send(port, head(MAX_HEAD_BYTES)))[0] == 404
    status, _, body = await send(port, head(MAX_HEAD_BYTES + 1))
    assert (status, json.loads(body)["code"]) == (431, "headers_too_large")


async def test_a_head_that_does_not_arrive_in_time_is_refused(port):
    status, _, body = await send(port, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    assert (status, json.loads(body)["code"]) == (408, "headers_timeout")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "gzip, identity", "x"])
async def test_a_body_in_an_encoding_is_refused_and_never_decompressed(port, encoding):
    head = (
        "POST /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Encoding: {encoding}\r\nContent-Length: 4\r\n\r\n"
    ).encode()
    with capture_logs() as logs:
        status, headers, body = await send(port, head + b"junk")
    assert (status, json.loads(body)["code"]) == (415, "content_encoding_refused")
    assert headers["Accept-Encoding"] == "identity"
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_a_body_in_the_identity_encoding_is_read(port):
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: Identity\r\n"
    assert (await send(port, head + b"Content-Length: 4\r\n\r\nbody"))[::2] == (200, b"body")


async def test_no_handler_gets_an_inflated_body(port):
    packed = gzip.compress(b"a" * 100_000)
    head = (
        "POST /raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    ).encode()
    assert (await send(port, head + packed))[::2] == (200, packed)


CHUNKED = b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_broken_chunk_is_answered_at_once_and_closes_the_connection(port, read_began):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with capture_logs() as logs:
        writer.write(CHUNKED + b"4\r\nbody\r\n")
        await read_began.wait()
        writer.write(b"no size\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_the_trailers_of_a_chunked_body_are_bounded(port, read_began):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CHUNKED + b"0\r\n")
    await read_began.wait()
    for number in range(20):
        writer.write(b"X-%d: %s\r\n" % (number, b"x" * 30_000))
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


@pytest.mark.parametrize(
    "first",
    [
        b"\x00\x01\x02\r\n",
        b"GET /refuse HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /refuse HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
    ids=["junk", "websocket", "h2c", "connect", "close"],
)
async def test_after_the_last_request_of_a_connection_junk_is_read_and_not_kept(
    port, server, first
):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"\x00junk\r\n" * 1000)
                await writer.drain()
                for connection in server.server.connections:
                    assert len(connection._messages) <= 2
                    assert len(connection._message_tail) == 0
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).count(b"HTTP/1.1 ") <= 1
    writer.close()


async def test_what_can_not_be_parsed_is_counted_as_refused(port, recorder):
    await send(port, MALFORMED["version"][0])
    await send(port, MALFORMED["size"][0])
    await send(port, MALFORMED["expect"][0])
    await send(port, b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    text = recorder.render()[0].decode()
    for code in ("bad_request", "headers_too_large", "expectation_failed", "not_found"):
        assert f'outbox_refused_total{{code="{code}"}} 1.0' in text


async def test_a_stop_does_not_wait_for_a_client_that_still_sends_a_refused_body(server, port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\nsome")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    async with asyncio.timeout(2):
        await server.cleanup()
    writer.close()


async def test_a_client_that_goes_away_in_its_body_is_no_fault_of_ours(port, read_ended):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with capture_logs() as logs:
        writer.write(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(10):
            await read_ended.wait()
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_a_stop_lets_a_request_that_has_begun_arrive_whole(server, port, read_began):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    async with asyncio.timeout(10):
        await read_began.wait()
        [connection] = server.server.connections
        stopping = asyncio.create_task(server.cleanup())
        while not connection._force_close:  # noqa: ASYNC110  (aiohttp tells nobody)
            await asyncio.sleep(0)
        writer.write(b" done")
        answer = await reader.read()
        await stopping
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"half done")


@pytest.mark.parametrize(("max_wait_seconds", "posts_at_work"), [(10, 2), (0.01, 5)])
async def test_of_a_crowd_of_posts_some_run_for_a_moment_and_slow_clients_do_not_count(
    recorder, max_wait_seconds, posts_at_work
):
    at_work, let_go = [], asyncio.Event()

    async def work(request: web.Request) -> web.Response:
        at_work.append(request.path)
        if request.path != "/slow":
            await let_go.wait()
        return web.Response(body=await request.read())

    app = web.Application()
    app.add_routes([web.post("/{any}", work), web.get("/seen", work)])
    policy = ServerPolicy(
        shutdown_seconds=1, concurrent_posts=2, post_wait_seconds=max_wait_seconds
    )
    server = HttpServer(app, recorder, policy)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    port = server.addresses[0][1]
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    for _, writer in slow:
        writer.write(head % b"slow")
    posts = [asyncio.create_task(send(port, head % b"whole" + b"ok")) for _ in range(5)]
    seen = asyncio.create_task(
        send(port, b"GET /seen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    )
    async with asyncio.timeout(5):
        while len(at_work) < 4 + posts_at_work:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert Counter(at_work) == {"/slow": 3, "/whole": posts_at_work, "/seen": 1}
        let_go.set()
        assert [(await post)[0] for post in posts] == [200] * 5
        assert (await seen)[0] == 200
    for _, writer in slow:
        writer.close()
    await server.cleanup()
