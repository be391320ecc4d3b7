"""Large bodies share memory: each waits for its part, and a slow one loses it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import threading
from collections.abc import AsyncIterator
from unittest import mock

import psutil
import pytest
from aiohttp import web

from inngest_outbox.errors import NotFoundError
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.web.server import body_budget, server
from inngest_outbox.web.server.body import read_raw_body
from inngest_outbox.web.server.body_budget import BodyBudget, body_budget_key
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.server import HttpServer
from tests.support.raw_http import connected, listening, send
from tests.support.storage import PATIENCE_SECONDS

KIB = 1024
BUDGET = 400 * KIB
OWNERS_PART = 100 * KIB
LARGE = 90 * KIB


class Site:
    """A server whose handler holds each body until `may_end`. The path is the owner."""

    def __init__(self) -> None:
        self.at_work: list[str] = []
        self.began = asyncio.Condition()
        self.may_end = asyncio.Event()
        self.port: int

    async def hold(self, request: web.Request) -> web.Response:
        body = await read_raw_body(request, max_bytes=1024 * KIB, owner=request.path)
        async with self.began:
            self.at_work.append(request.path)
            self.began.notify_all()
        if request.query.get("hold"):
            await self.may_end.wait()
        if request.query.get("break"):
            begun = web.StreamResponse()
            await begun.prepare(request)
            await begun.write(b"begun")
            raise NotFoundError
        return web.json_response({"bytes": len(body)})

    async def until_at_work(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self.began:
            await self.began.wait_for(lambda: len(self.at_work) >= count)


@pytest.fixture
def wait_seconds() -> float:
    return PATIENCE_SECONDS


@pytest.fixture
def budget_bytes() -> int:
    return BUDGET


@pytest.fixture
async def site(wait_seconds: float, budget_bytes: int) -> AsyncIterator[Site]:
    site = Site()
    app = web.Application(middlewares=[error_middleware(NullRecorder())])
    app[body_budget_key] = BodyBudget(budget_bytes, wait_seconds)
    app.add_routes([web.post("/{owner}", site.hold)])
    async with listening(HttpServer(app, NullRecorder())) as site.port:
        yield site
        site.may_end.set()


def head(path: str, *lines: str) -> bytes:
    fixed = (f"POST /{path} HTTP/1.1", "Host: a", "Connection: close")
    return "\r\n".join((*fixed, *lines, "", "")).encode()


def whole(path: str, size: int) -> bytes:
    return head(path, f"Content-Length: {size}") + b"x" * size


def chunked(path: str, size: int) -> bytes:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    return head(path, "Transfer-Encoding: chunked") + body


async def post(site: Site, request: bytes) -> tuple[int, dict[str, str], object]:
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        status, headers, body = await send(site.port, request)
    return status, headers, json.loads(body)


async def test_a_body_waits_until_another_of_its_owner_has_ended(site: Site) -> None:
    first = asyncio.create_task(post(site, whole("ada?hold=1", LARGE)))
    await site.until_at_work(1)
    waiting = [asyncio.create_task(post(site, whole("ada", LARGE))) for _ in range(2)]
    small = await post(site, whole("ada", 64 * KIB))
    other = await post(site, whole("bob", LARGE))
    assert (small[0], other[0]) == (200, 200)
    assert site.at_work == ["/ada", "/ada", "/bob"]  # the first, the small one, another owner's
    site.may_end.set()
    for one in (first, *waiting):
        assert (await one)[::2] == (200, {"bytes": LARGE})


@pytest.mark.parametrize("wait_seconds", [0.1])
@pytest.mark.parametrize("request_of", [whole, chunked])
async def test_a_body_that_gets_no_share_in_time_is_refused(site, request_of) -> None:
    async with connected(site.port) as (reader, writer):
        for size in (LARGE, 1, 1, 1, 1):  # its share is given back once
            writer.write(whole("ada", size).replace(b"Connection: close\r\n", b""))
            await reader.readuntil(b"}")
    site.at_work.clear()
    held = [
        asyncio.create_task(post(site, whole(f"{owner}?hold=1", OWNERS_PART)))
        for owner in ("a", "b", "c", "d")
    ]
    await site.until_at_work(4)
    for status, headers, body in await asyncio.gather(
        *(post(site, request_of(owner, LARGE)) for owner in ("e", "f"))
    ):
        assert (status, body["code"]) == (503, "outbox_unavailable")
        assert body["error"] == "Too many large requests are under way. Try again shortly."
        assert int(headers["Retry-After"]) >= 1
    site.may_end.set()
    assert {(await one)[0] for one in held} == {200}
    assert (await post(site, request_of("e", LARGE)))[0] == 200


async def test_a_body_above_an_owners_part_counts_as_all_of_it(site: Site) -> None:
    for request in (whole("ada", 9 * OWNERS_PART), chunked("ada", 9 * OWNERS_PART)):
        assert (await post(site, request))[::2] == (200, {"bytes": 9 * OWNERS_PART})


@pytest.mark.parametrize(("wait_seconds", "budget_bytes"), [(0.1, 8 * BUDGET)])
async def test_a_body_that_grows_asks_for_little_more_than_it_has(site: Site) -> None:
    first = asyncio.create_task(post(site, chunked("ada?hold=1", LARGE)))
    await site.until_at_work(1)
    assert (await post(site, chunked("ada", LARGE)))[0] == 200
    assert (await post(site, chunked("ada", 6 * LARGE)))[0] == 503
    site.may_end.set()
    assert (await first)[0] == 200


async def test_the_share_of_a_client_that_leaves_or_loses_its_answer_is_free_again(
    site: Site,
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head("ada", f"Content-Length: {LARGE}") + b"x" * KIB)
    await writer.drain()
    waiting = asyncio.create_task(post(site, whole("ada", LARGE)))
    writer.close()
    assert (await waiting)[0] == 200
    assert (await send(site.port, whole("ada?break=1", LARGE)))[2].endswith(b"begun\r\n")
    assert (await post(site, whole("ada", LARGE)))[0] == 200


@pytest.mark.parametrize(
    "begun",
    [
        head("ada", f"Content-Length: {LARGE}") + b"x" * KIB,
        chunked("ada", LARGE).removesuffix(b"0\r\n\r\n"),
    ],
    ids=["declared", "chunked"],
)
async def test_a_large_body_that_comes_too_slowly_loses_its_share(
    site: Site, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("inngest_outbox.web.server.body.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("inngest_outbox.web.server.body.BODY_SECONDS", PATIENCE_SECONDS)
    async with connected(site.port) as (reader, writer):
        writer.write(begun)
        told = await reader.readuntil(b"}")
    first, _, body = told.partition(b"\r\n\r\n")
    assert (first.split()[1], json.loads(body)["code"]) == (b"408", "body_timeout")
    assert (await post(site, whole("ada", LARGE)))[0] == 200


async def test_the_memory_of_large_bodies_goes_back_to_the_system(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies, connections = threading.Event(), threading.Event()
    monkeypatch.setattr(server, "_RETURN_SECONDS", 0.0)
    monkeypatch.setattr(body_budget, "_IDLE_SECONDS", 0.0)
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", collected.append)
    for module, event in ((body_budget, bodies), (server, connections)):
        monkeypatch.setattr(module, "return_memory", event.set)
    await post(site, whole("ada", 1))
    for _ in range(2):
        await post(site, whole("ada", LARGE))
        for event in (bodies, connections):
            assert await asyncio.to_thread(event.wait, PATIENCE_SECONDS)
            event.clear()
    assert collected == [1, 1]  # a whole collection would hold up all requests


async def test_a_stop_right_after_large_bodies_is_no_fault(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_RETURN_SECONDS", 0.0)
    monkeypatch.setattr(body_budget, "_IDLE_SECONDS", 0.0)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert (await post(site, whole("ada", LARGE)))[0] == 200


def test_memory_between_what_is_in_use_goes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [b"%5d" % number * 10_000 for number in range(1_000)]
    in_use = blocks[::100]
    before = psutil.Process().memory_info().rss
    blocks.clear()
    body_budget.return_memory()
    assert len(in_use) == 10
    assert before - psutil.Process().memory_info().rss > 32 * KIB * KIB
    for other_system in ({"return_value": object()}, {"side_effect": OSError}):
        monkeypatch.setattr(ctypes, "CDLL", mock.Mock(**other_system))
        body_budget.return_memory()
