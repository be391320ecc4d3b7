"""What frames a body: a request that two servers could read in two ways ends its connection.

A body that looks like a second request follows each one, as in request smuggling.
"""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest

from tests.support.raw_http import connected
from tests.support.storage import PATIENCE_SECONDS

LENGTHS = {
    *(None, b"0", b"5", b"05", b"5 ", b" 5", b"+5", b"-1", b"0x5", b"5,5", b"5, 6", b"5;a", b""),
    *(b"\xd9\xa5", b"1e1", b"9" * 20),
}
CODINGS = {
    *(None, b"chunked", b"Chunked", b"chunked, chunked", b"identity", b"gzip, chunked"),
    *(b"identity, chunked", b"x,chunked"),
    *(b"chunked, identity", b"xchunked", b"chunked\x0b", b"\x0bchunked", b"chunked;q=1"),
    *(b",chunked", b"chunked,", b'"chunked"'),
}
CLEAR = {
    *((length, None) for length in (None, b"0", b"5", b"05", b"5 ", b" 5")),
    *((None, coding) for coding in (b"chunked", b"Chunked")),
}
BODY = b"5\r\nhello\r\n0\r\n\r\nGET /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

REFUSED = [b"400", b"bad_request"]
READ = [b"200", b"hello", b"404"]


async def answers(port: int, head: bytes) -> list[bytes]:
    async with connected(port) as (reader, writer):
        writer.write(b"POST /raw HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n" + BODY)
        answer = await reader.read()
    return re.findall(rb"(?<=HTTP/1.1 )\d+|(?<=HTTP/1.0 )\d+|hello|bad_request", answer)


async def test_a_body_that_two_servers_could_frame_in_two_ways_ends_its_connection(port) -> None:
    for length, coding in itertools.product(LENGTHS, CODINGS):
        head = b"" if length is None else b"Content-Length: " + length + b"\r\n"
        head += b"" if coding is None else b"Transfer-Encoding: " + coding + b"\r\n"
        if (length, coding) not in CLEAR:
            assert await answers(port, head) == REFUSED, head


async def test_a_chunked_body_ends_where_it_says(port) -> None:
    for coding in (b"chunked", b"Chunked", b" chunked "):
        assert await answers(port, b"Transfer-Encoding: " + coding + b"\r\n") == READ


@pytest.mark.parametrize("is_one_piece", [False, True])
async def test_a_malformed_request_after_a_post_is_answered_too(port, is_one_piece) -> None:
    post = b"POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    malformed = b"GET / HTTP/1.1\r\nno header\r\n\r\n"
    async with connected(port) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(post + malformed if is_one_piece else post)
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
        if not is_one_piece:
            writer.write(malformed)
        assert b" 400 Bad Request\r\n" in await reader.read()


async def test_a_body_that_is_faulty_in_one_piece_with_its_head_is_answered(port) -> None:
    """The connection waits for a request meanwhile, as after each answer."""
    async with connected(port) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(b"GET /refuse HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"}")
        head = b"POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"1\r\nx\r\nzz\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
