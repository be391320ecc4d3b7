"""No peer, client or flood takes all connections of a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.web.server.admission import AdmissionPolicy
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.proxies import Proxies, proxies_key
from inngest_outbox.web.server.server import HttpServer, ServerPolicy
from tests.support.raw_http import connected, listening, send
from tests.support.storage import PATIENCE_SECONDS, eventually

LIMIT = 12
CLOSE = b"Host: a\r\nConnection: close\r\n\r\n"


class Site:
    """A server with room for 12 connections. `/hold` answers once `may_end` is set."""

    def __init__(self, proxies: Proxies, admission: AdmissionPolicy) -> None:
        self.recorder = PrometheusRecorder()
        self.at_work = 0
        self.may_end = asyncio.Event()
        app = web.Application(middlewares=[error_middleware(self.recorder)])
        app[proxies_key] = proxies
        paths = {"/hold": self.hold, "/outbox/hold": self.hold, "/stream": self.stream}
        paths["/{any:.*}"] = self.answer
        app.add_routes([web.route("*", path, answer) for path, answer in paths.items()])
        policy = ServerPolicy(max_connections=LIMIT, keep_alive_seconds=3600, admission=admission)
        self.server = HttpServer(app, self.recorder, policy)

    @property
    def port(self) -> int:
        return int(self.server.addresses[0][1])

    async def hold(self, request: web.Request) -> web.Response:
        del request
        self.at_work += 1
        await self.may_end.wait()
        return web.Response(text="held")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Goes on until the client has left."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"streamed")
            await asyncio.sleep(0)

    async def answer(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="here")

    async def until(self, *, at_work: int = 0, connections: int = 0) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await eventually(
                lambda: (
                    self.at_work >= at_work and len(self.server.server.connections) >= connections
                )
            )

    async def asks(self, path: str, *lines: bytes) -> int:
        head = b"POST %s HTTP/1.1\r\n" % path.encode() + b"".join(one + b"\r\n" for one in lines)
        async with asyncio.timeout(PATIENCE_SECONDS):
            status, headers, body = await send(self.port, head + CLOSE)
        told = b"Too many requests are under way. Try again shortly." in body
        assert told is (status == 503)
        assert headers.get("Retry-After") == {429: "1", 503: "2"}.get(status)
        return status

    async def is_left(self, line: bytes) -> None:
        """A client leaves in the middle of an answer."""
        before = len(self.server.server.connections)
        async with connected(self.port) as (reader, writer):
            writer.write(b"POST /stream HTTP/1.1\r\n" + line + b"\r\n" + CLOSE)
            await reader.readuntil(b"streamed")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await eventually(lambda: len(self.server.server.connections) == before)

    async def is_refused(self) -> None:
        """A new connection is closed without a word."""
        async with connected(self.port) as (reader, _):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""

    def holding(self, count: int, *lines: bytes) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.asks("/hold", *lines)) for _ in range(count)]


@contextlib.asynccontextmanager
async def serving(trusted: str, posts: int = 256) -> AsyncIterator[Site]:
    site = Site(Proxies([trusted]), AdmissionPolicy(posts=posts, post_wait_seconds=3600))
    async with listening(site.server):
        try:
            yield site
        finally:
            site.may_end.set()


@pytest.fixture
async def behind_a_proxy() -> AsyncIterator[Site]:
    """This machine is the proxy."""
    async with serving("127.0.0.1") as site:
        yield site


@pytest.fixture
async def in_the_open() -> AsyncIterator[Site]:
    async with serving("192.0.2.1") as site:
        yield site


async def test_a_new_connection_takes_the_place_of_the_longest_idle_one(behind_a_proxy: Site):
    site = behind_a_proxy
    held = site.holding(1)
    await site.until(at_work=1)
    idle = []
    for count in range(2, LIMIT + 1):
        idle.append(await asyncio.open_connection("127.0.0.1", site.port))
        await site.until(connections=count)
    used = idle.pop(0)
    used[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await used[0].readuntil(b"here")
    assert await asyncio.gather(site.asks("/"), site.asks("/")) == [200, 200]
    async with asyncio.timeout(PATIENCE_SECONDS):
        for reader, _ in idle[:2]:  # the longest without a request
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    used[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await used[0].readuntil(b"here")
    site.may_end.set()
    assert await held[0] == 200
    for _, writer in (used, *idle):
        writer.close()


async def test_a_request_that_waits_for_its_turn_is_at_work():
    async with serving("127.0.0.1", posts=1) as site:
        held = site.holding(LIMIT - 1)
        await site.until(connections=LIMIT - 1)
        await eventually(lambda: all(one.arrived_at for one in site.server.server.connections))
        assert site.at_work == 1
        assert await site.asks("/other") == 503
        site.may_end.set()
        assert {await one for one in held} == {200}


async def test_while_most_are_at_work_health_and_operators_are_served(behind_a_proxy: Site):
    site = behind_a_proxy
    async with connected(site.port) as (_, writer):
        writer.write(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await site.until(at_work=1)
        [left] = site.server.server.connections
    await eventually(lambda: left.transport is None)
    site.may_end.set()  # the request of a client that has left
    site.may_end.clear()
    site.at_work = 0
    held = site.holding(LIMIT - 2)
    await site.until(at_work=LIMIT - 2)
    assert await site.asks("/other") == 200
    held += site.holding(1)
    await site.until(at_work=LIMIT - 1)
    assert await site.asks("/other") == 503
    for path in ("/healthz", "/readyz", "/metrics", "/outbox/events"):
        assert await site.asks(path) == 200
    counted = b'outbox_refused_total{code="outbox_unavailable"} 1.0'
    assert counted in site.recorder.render()[0]
    site.may_end.set()
    assert {await one for one in held} == {200}
    assert await site.asks("/other") == 200


async def test_a_connection_too_many_is_closed_while_all_are_at_work(behind_a_proxy: Site):
    site = behind_a_proxy
    held = site.holding(LIMIT - 1)
    await site.until(at_work=LIMIT - 1)
    async with connected(site.port) as (reader, writer):
        writer.write(b"GET /outbox HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"here")
        assert await site.asks("/healthz") == 200  # in the place of the idle one
        last = asyncio.create_task(site.asks("/outbox/hold"))
        await site.until(at_work=LIMIT)
    await site.is_refused()
    site.may_end.set()
    assert {await one for one in (*held, last)} == {200}


async def test_one_peer_has_half_of_the_connections(in_the_open: Site):
    site = in_the_open
    held = []
    for count in range(1, LIMIT // 2 + 1):
        held.append(await asyncio.open_connection("127.0.0.1", site.port))
        await site.until(connections=count)
    await site.is_refused()
    counted = b'outbox_refused_total{code="too_many_connections"} 1.0'
    assert counted in site.recorder.render()[0]
    while len(held) > 1:
        held.pop()[1].close()
    await eventually(lambda: len(site.server.server.connections) == 1)
    for count in range(2, LIMIT // 2 + 1):
        held.append(await asyncio.open_connection("127.0.0.1", site.port))
        await site.until(connections=count)
    await site.is_refused()
    other = await asyncio.open_connection("127.0.0.1", site.port, local_addr=("127.0.0.2", 0))
    other[1].write(b"GET / HTTP/1.1\r\n" + CLOSE)
    assert (await other[0].read()).endswith(b"here")
    for _, one in (*held, other):
        one.close()
    await eventually(lambda: not site.server.server.connections)
    assert await site.asks("/again") == 200
    held = site.holding(LIMIT // 4 + 1, b"X-Forwarded-For: 198.51.100.1")  # by no proxy
    await site.until(at_work=LIMIT // 4 + 1)
    site.may_end.set()
    assert {await one for one in held} == {200}


async def test_a_proxys_client_has_a_quarter_at_work_by_the_address_that_the_proxy_added(
    behind_a_proxy: Site,
):
    site = behind_a_proxy
    name = b"X-Forwarded-For: "
    ada = name + b"203.0.113.9\r\n" + name + b"203.0.113.9, 198.51.100.1"
    held = site.holding(1, ada)
    await site.until(at_work=1)
    assert await site.asks("/other", ada) == 200
    held += site.holding(LIMIT // 4 - 1, ada)
    await site.until(at_work=LIMIT // 4)
    assert await site.asks("/other", b"X-Forwarded-For: 198.51.100.1") == 429
    assert b'outbox_refused_total{code="rate_limited"} 1.0' in site.recorder.render()[0]
    assert await site.asks("/other", b"X-Forwarded-For: 198.51.100.2") == 200
    for _ in range(LIMIT // 4):
        await site.is_left(b"X-Forwarded-For: 198.51.100.2")
    assert await site.asks("/other", b"X-Forwarded-For: 198.51.100.2") == 200
    held += site.holding(LIMIT // 4 + 1, name)  # of nobody
    await site.until(at_work=2 * (LIMIT // 4) + 1)
    for connection in site.server.server.connections:
        connection.transport.abort()
    await asyncio.gather(*held, return_exceptions=True)
    site.may_end.set()
    assert await site.asks("/other", ada) == 200
