"""Floods of anonymous connections against one service on loopback, and what they cost it.

Each flood keeps `connections` sockets busy for as long as it runs. What it costs is the growth of
the service's memory and how long /healthz takes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from tests.support.beside import beside

HEAD = b"POST /api/route HTTP/1.1\r\nHost: localhost\r\n"
LINE = b"X-%d: " + b"x" * 32_000 + b"\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
UPGRADE = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
JUNK = b"\x00\x01 this is no HTTP\r\n" * 500

KEY = "0123456789abcdef"
LARGE = 20 * 1024 * 1024

Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Cost:
    """`grown_bytes` is memory at its highest above what it was before."""

    grown_bytes: int
    slowest_seconds: float


async def unfinished_heads(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    for number in range(120):
        writer.write(LINE % number)
        await writer.drain()
    await asyncio.sleep(60)


async def trailers(writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED)
    for number in range(120):
        writer.write(LINE % number)
        await writer.drain()
    await asyncio.sleep(60)


async def junk(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(JUNK)
        await writer.drain()


async def junk_after_upgrade(writer: asyncio.StreamWriter) -> None:
    writer.write(UPGRADE)
    await junk(writer)


@functools.cache
def bomb() -> bytes:
    """The begin of a gzip stream of 400 MiB of zeros, about 400 KiB.

    Each MiB is compressed by itself, so that they are the same, and made in no time.
    """
    packer = zlib.compressobj(wbits=31)
    first, other = (
        packer.compress(bytes(1024 * 1024)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + other * 399


async def gzip_bombs(writer: asyncio.StreamWriter) -> None:
    head = HEAD + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % (len(bomb()) + 1))
    writer.write(bomb())
    await writer.drain()
    await asyncio.sleep(60)


async def pipelined_heads(writer: asyncio.StreamWriter) -> None:
    whole = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 30_000 + b"\r\n\r\n"
    while True:
        writer.write(whole * 8)
        await writer.drain()


async def tiny_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED.removesuffix(b"0\r\n"))
    while True:
        writer.write(b"1\r\nx\r\n" * 1_000)
        await writer.drain()


async def cookies(writer: asyncio.StreamWriter) -> None:
    whole = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nCookie: " + b"a=b; " * 6_300 + b"\r\n\r\n"
    while True:
        writer.write(whole)
        await writer.drain()


async def unread_answers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    await asyncio.sleep(60)


async def pipelined_questions(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
        await writer.drain()


async def nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def large_bodies(writer: asyncio.StreamWriter) -> None:
    """Of a machine with a key."""
    writer.write(f"POST /e/{KEY} HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n".encode())
    for _ in range(LARGE // len(JUNK)):
        writer.write(JUNK)
        await writer.drain()
    await asyncio.sleep(60)


FLOODS: dict[str, tuple[Send, int]] = {
    "gzip bombs": (gzip_bombs, 6),
    "unfinished heads": (unfinished_heads, 300),
    "trailers": (trailers, 300),
    "junk": (junk, 50),
    "junk after an upgrade": (junk_after_upgrade, 50),
    "pipelined heads": (pipelined_heads, 50),
    "tiny chunks": (tiny_chunks, 100),
    "cookies": (cookies, 50),
    "unread answers": (unread_answers, 300),
    "pipelined questions": (pipelined_questions, 20),
    "idle connections": (nothing, 400),
    "large bodies": (large_bodies, 80),
}


async def cost(url: str, pid: int, flood: str, seconds: float) -> Cost:
    """What the named flood costs the process `pid` in so many seconds, and over two probes."""
    process = psutil.Process(pid)
    before = process.memory_info().rss
    highest, slowest, probes = before, 0.0, 0
    send, connections = FLOODS[flood]
    async with beside(*(_keep_sending(url, send) for _ in range(connections))):
        end = time.monotonic() + seconds
        while time.monotonic() < end or probes < 2:
            slowest = max(slowest, await _probe(url))
            probes += 1
            highest = max(highest, process.memory_info().rss)
            await asyncio.sleep(0.05)
    return Cost(highest - before, slowest)


async def _keep_sending(url: str, send: Send) -> None:
    address = urlsplit(url)
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                await send(writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.05)


async def _probe(url: str) -> float:
    """How long /healthz takes on a connection of its own; at most so long as a test may."""
    address = urlsplit(url)
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    with contextlib.closing(writer.transport):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await reader.read()
    return time.monotonic() - began
