"""What one client may take of the server: pipelined requests, tiny chunks, unread answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.web.server.admission import AdmissionPolicy
from inngest_outbox.web.server.body import read_raw_body
from inngest_outbox.web.server.connection import Connection, while_connected
from inngest_outbox.web.server.server import HttpServer, ServerPolicy
from tests.support.raw_http import connected, listening
from tests.support.storage import PATIENCE_SECONDS, eventually

ASK = b"GET /kind HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /kind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_TIME = ServerPolicy(admission=AdmissionPolicy(pieces_seconds=0.0), shutdown_seconds=0.1)


async def kind(request: web.Request) -> web.Response:
    assert isinstance(request.protocol, Connection)
    assert request.protocol.arrived_at is not None
    assert 0 <= time.monotonic() - request.protocol.arrived_at < PATIENCE_SECONDS
    return web.Response(text="pipelined" if request.protocol.is_pipelining else "one by one")


async def large(request: web.Request) -> web.Response:
    return web.Response(body=bytes(int(request.query_string)))


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await read_raw_body(request, max_bytes=2**22))


async def unread(request: web.Request) -> web.Response:
    await while_connected(request, asyncio.Event().wait())
    return web.Response()


@contextlib.asynccontextmanager
async def serving(
    policy: ServerPolicy, kind: Handler = kind
) -> AsyncIterator[tuple[HttpServer, int]]:
    app = web.Application()
    app.add_routes([web.get("/kind", kind), web.get("/large", large), web.post("/echo", echo)])
    app.add_routes([web.post("/unread", unread)])
    server = HttpServer(app, PrometheusRecorder(), policy)
    async with listening(server) as port:
        yield server, port


async def test_a_client_that_does_not_wait_for_answers_counts_as_pipelining() -> None:
    async with serving(ServerPolicy()) as (_, port), connected(port) as (reader, writer):
        for _ in range(2):
            writer.write(ASK)
            assert b"200 OK" in await reader.readuntil(b"one by one")
        writer.write(ASK + LAST)
        assert (await reader.read()).count(b"pipelined") == 2


async def test_of_pipelined_requests_two_are_taken_while_one_is_at_work() -> None:
    waits = b"POST /unread HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving(ServerPolicy(shutdown_seconds=0.1)) as (server, port), connected(port):
        assert server.server is not None
        [connection] = await eventually(lambda: server.server.connections)
        assert connection.transport is not None
        for count, is_pipelining, reads_on in ((1, False, True), (1, True, True), (4, True, False)):
            connection.data_received(waits * count)
            await eventually(lambda: connection._request_in_progress)
            assert connection.is_pipelining is is_pipelining
            assert connection.transport.is_reading() is reads_on
        assert len(connection._messages) == 2
        async with connected(port):
            both = await eventually(lambda: server.server.connections, lambda them: len(them) == 2)
            [other] = set(both) - {connection}
            other.data_received(waits * 5)
            assert len(other._messages) == 2


@pytest.mark.parametrize("framed", [b"%x\r\n%b\r\n0\r\n\r\n", b"%b"], ids=["chunked", "sized"])
async def test_large_pieces_arrive_whole_though_no_turn_has_time_for_them(framed: bytes) -> None:
    body = bytes(range(256)) * 8_000
    size = b"Transfer-Encoding: chunked" if b"%x" in framed else b"Content-Length: %d" % len(body)
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % size
    sent = head + framed.replace(b"%x", b"%x" % len(body)).replace(b"%b", body)
    async with serving(NO_TIME) as (server, port), connected(port):
        assert server.server is not None
        [gone] = await eventually(lambda: server.server.connections)
        async with connected(port) as (reader, writer):
            gone.transport.abort()
            gone.data_received(sent[:5000])  # its turn comes when the client has left
            writer.write(sent * 2 + ASK * 300 + LAST)
            answer = await reader.read()
    assert answer.count(body) == 2
    assert answer.count(b"200 OK") == 303


async def test_a_small_piece_does_not_overtake_a_large_one_that_waits_for_its_turn() -> None:
    body = b"x" * 5000 + b"y" + b"z" * 5000
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(NO_TIME) as (server, port), connected(port) as (reader, writer):
        writer.write(ASK)
        await reader.readuntil(b"one by one")
        assert server.server is not None
        [connection] = server.server.connections
        connection.data_received(head + body[:5000])
        assert connection.transport is not None
        assert not connection.transport.is_reading()  # 5,000 bytes are a large piece
        connection.data_received(b"y")  # aiohttp may resume reading at any moment
        connection._rules = dataclasses.replace(connection._rules, parses_now=lambda _: True)
        connection.data_received(body[5001:])  # now there is time, but others come first
        assert (await reader.readuntil(b"z" * 5000)).endswith(body)


@pytest.mark.parametrize(
    ("size", "piece"), [(999_999, b"x" * 300_000), (9, b"x" * 9 + ASK * 300)], ids=["body", "heads"]
)
async def test_a_large_piece_is_the_last_one_until_the_handler_reads(
    size: int, piece: bytes
) -> None:
    async with serving(NO_TIME) as (server, port), connected(port):
        assert server.server is not None
        [connection] = await eventually(lambda: server.server.connections)
        assert connection.transport
        connection.data_received(
            b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
        )
        connection.data_received(piece)
        assert not connection.transport.is_reading()
        for _ in range(16):
            await asyncio.sleep(0)
        assert not connection.transport.is_reading()


async def test_each_pipelined_request_is_answered_in_order_though_a_turn_starts_one() -> None:
    policy = ServerPolicy(admission=AdmissionPolicy(least=1, most=1))
    async with serving(policy) as (_, port), connected(port) as (reader, writer):
        writer.write(ASK * 49 + LAST)
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 50


async def test_a_pipelined_request_waits_behind_others_and_counts_from_its_arrival() -> None:
    began = list[tuple[str, float, float]]()

    async def note(request: web.Request) -> web.Response:
        assert isinstance(request.protocol, Connection)
        began.append((request.query_string, request.protocol.arrived_at or 0, time.monotonic()))
        return web.Response()

    policy = ServerPolicy(admission=AdmissionPolicy(least=1, most=1, pipelined_share=9))
    async with contextlib.AsyncExitStack() as stack:
        server, port = await stack.enter_async_context(serving(policy, note))
        for _ in "apb":
            await stack.enter_async_context(connected(port))
        assert server.server
        three = await eventually(lambda: server.server.connections, lambda all_: len(all_) == 3)
        for connection, name, count in zip(three, (b"a", b"p", b"b"), (1, 2, 1), strict=True):
            connection.data_received(ASK.replace(b"kind", b"kind?" + name) * count)
        await eventually(lambda: len(began) == 4)
    assert [name for name, *_ in began] == ["a", "b", "p", "p"]
    assert began[2][1] < began[1][2]
    assert began[3][1] >= began[2][2]  # read with the one before, and taken after it


async def test_a_client_that_leaves_the_end_of_its_answers_unread_is_dropped() -> None:
    policy = ServerPolicy(unread_seconds=0.3, keep_alive_seconds=0.1, head_seconds=3600.0)
    async with serving(policy) as (server, port), connected(port):
        assert server.server is not None
        [connection] = await eventually(lambda: server.server.connections)
        transport = connection.transport
        assert transport
        while not transport.get_write_buffer_size():
            connection.data_received(b"GET /large?32000 HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(16):
                await asyncio.sleep(0)
        await eventually(lambda: not server.server.connections)


@pytest.mark.parametrize("size", [1, 48])
async def test_a_body_in_tiny_chunks_ends_its_connection_early(
    port: int, read_began: asyncio.Event, read_ended: asyncio.Event, size: int
) -> None:
    async with connected(port) as (reader, writer):
        writer.write(CHUNKED)
        await read_began.wait()
        writer.write((b"%x\r\n" % size + b"x" * size + b"\r\n") * 16_000 + b"0\r\n\r\n")
        await read_ended.wait()
        with contextlib.suppress(ConnectionError):
            assert b" 200 " not in await reader.read()


@pytest.mark.parametrize(("size", "chunks"), [(100, 5_000), (10, 3_000)])
async def test_a_body_in_small_chunks_is_read(port: int, size: int, chunks: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(CHUNKED + (b"%x\r\n" % size + b"x" * size + b"\r\n") * chunks)
        writer.write(b"0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_more_pipelined_heads_than_may_wait_are_all_answered(port: int) -> None:
    whole = b"GET /refuse HTTP/1.1\r\nHost: a\r\nX-Pad: " + b"x" * 30_000 + b"\r\n"
    async with connected(port) as (reader, writer):
        writer.write((whole + b"\r\n") * 19 + whole + b"Connection: close\r\n\r\n")
        assert (await reader.read()).count(b"HTTP/1.1 404 ") == 20
