"""What one connection may make the server hold: heads, bodies, junk, and connections in all."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
from unittest import mock

import pytest
from structlog.testing import capture_logs

from inngest_outbox.web.server.request_parser import HEAD_BYTES, HEADER_BYTES, BoundedParser
from tests.support.raw_http import connected, send
from tests.support.storage import eventually

CHUNKED = b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_header_and_a_request_line_of_32_kib_are_read(port):
    long = b"x" * (HEADER_BYTES - 100)
    head = b"GET /refuse?%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: %b\r\n\r\n"
    assert (await send(port, head % (long, long)))[0] == 404


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("size", "status"), [(HEAD_BYTES, b"404"), (HEAD_BYTES + 1, b"431")])
async def test_a_head_may_have_64_kib_in_all(port, server, size, status, parts):
    start = b"GET /refuse HTTP/1.1\r\nHost: a\r\n"
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 30_000) for n in range(2)) + b"X-Pad: "
    pad = b"x" * (size - len(start) - len(lines) - len(b"\r\n\r\n"))
    rest = lines + pad + b"\r\n\r\n"
    async with connected(port) as (reader, _):
        [connection] = await eventually(lambda: server.server.connections)
        for part in [start + rest] if parts == 1 else [start, rest]:
            connection.data_received(part)
        assert (await reader.readline()).split()[1] == status


async def test_a_head_may_have_128_headers(port):
    def head(headers: int) -> bytes:
        lines = b"".join(b"X-%d: a\r\n" % number for number in range(headers - 2))
        return b"GET /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + lines + b"\r\n"

    assert (await send(port, head(128)))[0] == 404
    status, _, body = await send(port, head(129))
    assert (status, json.loads(body)["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("version", ["0.9", "2.0"])
async def test_a_request_in_another_version_of_http_is_refused_in_ours(port, version):
    async with connected(port) as (reader, writer):
        writer.write(f"GET /refuse HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert b'"code":"bad_request"' in answer


BODY = b"\r\n\r\n" + b"body" * 9
WHOLE = {
    "plain": b"GET /refuse HTTP/1.1\r\nHost: a\r\n\r\n",
    "sized": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + BODY,
    "chunked": CHUNKED + b"28\r\n%b\r\n0\r\n\r\n" % BODY,
    "trailers": CHUNKED + b"28\r\n%b\r\n0\r\nX: y\r\n\r\n" % (b"body" * 10),
}
HALF = b"GET /refuse HTTP/1.1\r\nHo"


async def test_a_head_has_begun_with_its_first_bytes_wherever_the_pieces_before_it_end():
    protocol = mock.Mock(_messages=[], _reading_paused=False)
    for requests in [*([one] for one in WHOLE), *itertools.product(WHOLE, repeat=2)]:
        for begun in (b"", b"\r\n", HALF):
            sent = b"".join(WHOLE[one] for one in requests) + begun
            for cut in range(len(sent)):
                parser = BoundedParser(protocol, asyncio.get_running_loop())
                parsed = [parser.feed_data(piece)[0] for piece in (sent[:cut], sent[cut:])]
                assert sum(map(len, parsed)) == len(requests)
                assert (parser.head_bytes > 0) is (begun == HALF), (requests, begun, cut)


@pytest.mark.parametrize("head_seconds", [0.3])
@pytest.mark.parametrize("first", WHOLE)
async def test_half_a_head_behind_a_whole_request_is_refused_in_time_too(port, first):
    async with connected(port) as (reader, writer):
        writer.write(WHOLE[first] + HALF)
        answers = await reader.read()
    assert answers.count(b"HTTP/1.") == 2
    assert answers.endswith(b"}")
    assert b'"code":"headers_timeout"' in answers


@pytest.mark.parametrize(
    "lines",
    [
        b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: Identity",
        b"HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c",
        b"HTTP/1.0",
    ],
)
async def test_a_body_as_it_is_is_read_from_clients_of_older_and_newer_http_too(port, lines):
    raw = b"POST /read %s\r\nContent-Length: 4\r\n\r\nbody" % lines
    assert (await send(port, raw))[::2] == (200, b"body")


async def test_no_handler_gets_an_inflated_body(port):
    packed = gzip.compress(b"a" * 100_000)
    head = (
        "POST /raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    ).encode()
    assert (await send(port, head + packed))[::2] == (200, packed)


async def test_a_broken_chunk_is_answered_at_once_and_closes_the_connection(port, read_began):
    with capture_logs() as logs:
        async with connected(port) as (reader, writer):
            writer.write(CHUNKED + b"4\r\nbody\r\n")
            await read_began.wait()
            writer.write(b"no size\r\n")
            answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_the_trailers_of_a_chunked_body_are_bounded(port, read_began):
    async with connected(port) as (reader, writer):
        writer.write(CHUNKED + b"0\r\n")
        await read_began.wait()
        for number in range(3):
            writer.write(b"X-%d: %s\r\n" % (number, b"x" * 30_000))
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "first",
    [
        b"\x00\x01\x02\r\n",
        b"GET /refuse HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /refuse HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        CHUNKED.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n0\r\n\r\n"),
        b"GET /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
    ids=["junk", "websocket", "h2c", "connect", "h2c with a body", "close"],
)
async def test_after_the_last_request_of_a_connection_junk_is_read_and_not_kept(
    port, server, first
):
    async with connected(port) as (reader, writer):
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"\x00junk\r\n" * 1000)
                await writer.drain()
                for connection in server.server.connections:
                    assert len(connection._messages) <= 2
                    assert len(connection._message_tail) == 0
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).count(b"HTTP/1.1 ") <= 1
