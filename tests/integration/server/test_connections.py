"""The life of a connection: its turns, its rest, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.web.server.admission import AdmissionPolicy
from inngest_outbox.web.server.server import HttpServer, ServerPolicy
from tests.support.raw_http import connected, listening
from tests.support.storage import PATIENCE_SECONDS, eventually

NEVER = 3600.0
TURNS = 16  # of the loop, until a stop waits for the requests at work
ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
HEALTH = ASK.replace(b"/ ", b"/healthz ", 1)


class Served:
    """A server whose answers wait until they may come, one client, and what it has answered."""

    def __init__(self) -> None:
        self.began, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.answered = 0
        self.headers: dict[str, str] = {}
        self.server: HttpServer
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def answer(self, request: web.Request) -> web.Response:
        self.began.set()
        await self.may_answer.wait()
        if request.content_length:
            await request.read()
        self.answered += 1
        return web.Response(text=f"answer {self.answered}", headers=self.headers)

    async def says(self, words: str) -> str:
        """The head of the next answer, whose body is `words`."""
        told = (await self.reader.readuntil(words.encode())).decode()
        return told.partition("\r\n\r\n")[0]


@contextlib.asynccontextmanager
async def serving(**policy: object) -> AsyncIterator[Served]:
    served = Served()
    app = web.Application()
    app.add_routes([web.route("*", "/", served.answer), web.get("/healthz", served.answer)])
    served.server = HttpServer(app, NullRecorder(), ServerPolicy(**policy))  # type: ignore[arg-type]
    async with listening(served.server) as port, connected(port) as streams:
        served.reader, served.writer = streams
        yield served


@pytest.mark.parametrize("sent", [b"", ASK], ids=["never used", "answered"])
async def test_a_connection_without_a_request_is_closed_by_itself(sent: bytes) -> None:
    async with serving(keep_alive_seconds=0.5) as served:
        served.writer.write(sent)
        if sent:
            await served.says("answer 1")
        assert await served.reader.read(1) == b""


async def test_pipelined_requests_that_were_read_are_answered_by_a_stop() -> None:
    no_time = AdmissionPolicy(pieces_seconds=0.0)
    async with serving(admission=no_time) as served:
        served.may_answer.clear()
        served.writer.write(ASK + POST.replace(b": 0", b": 5000"))
        await served.began.wait()
        stopping = asyncio.create_task(served.server.cleanup())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert served.server.server
        [connection] = served.server.server.connections
        connection.data_received(b"x" * 5000 + ASK)  # which is too late
        served.may_answer.set()
        assert (await served.reader.read()).endswith(b"answer 2")
        await stopping


async def test_a_connection_ends_with_the_answer_to_a_body_that_breaks_while_it_waits() -> None:
    chunked = POST.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    async with serving() as served:
        served.may_answer.clear()
        served.writer.write(ASK + chunked)
        await served.began.wait()
        assert served.server.server
        [connection] = served.server.server.connections
        connection.data_received(b"no size\r\n")
        served.may_answer.set()
        assert "Connection: close" not in await served.says("answer 1")
        assert "Connection: close" in await served.says("answer 2")
        assert await served.reader.read() == b""


async def test_a_stop_waits_so_long_for_a_request_as_it_is_told() -> None:
    async with serving(shutdown_seconds=0.05) as served, asyncio.timeout(PATIENCE_SECONDS / 4):
        served.may_answer.clear()
        served.writer.write(ASK + ASK)
        await served.began.wait()
        await served.server.cleanup()
        assert await served.reader.read() == b""


async def test_a_server_that_lets_go_lets_each_connection_be_used_once_more() -> None:
    async with serving() as served:
        await web.TCPSite(served.server, "127.0.0.1", 0).start()
        addresses = served.server.addresses
        _, other = await asyncio.open_connection(*addresses[1])
        served.writer.write(ASK)
        assert "Connection: close" not in await served.says("answer 1")
        leaving = asyncio.create_task(served.server.let_go(NEVER))
        for _ in ("two are left", "one is left"):
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert not leaving.done()
            other.close()
            await eventually(lambda: len(served.server.server.connections) == 1)
        served.writer.write(ASK + ASK)
        assert "Connection: close" not in await served.says("answer 2")
        assert "Connection: close" in await served.says("answer 3")
        assert await served.reader.read() == b""
        await leaving
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)


async def test_a_server_that_lets_go_waits_for_a_moment_alone() -> None:
    async with serving() as served:
        await served.server.let_go(0.05)
        served.writer.write(ASK)
        assert "Connection: close" in await served.says("answer 1")


async def test_a_fault_that_no_middleware_sees_is_logged_and_answered_in_the_one_form() -> None:
    async with serving() as served:
        served.may_answer = NotImplemented
        with capture_logs() as logs:
            served.writer.write(ASK)
            head = await served.says('"code":"internal_error"')
            assert await served.reader.readuntil(b"}")
            assert await served.reader.read() == b""
    assert head.startswith("HTTP/1.1 500 ")
    assert "Connection: close" in head
    [line] = logs
    assert (line["event"], type(line["exc_info"])) == ("request_failed", AttributeError)
    assert f"X-Request-Id: {line['request_id']}" in head


@pytest.mark.faulty
async def test_a_fault_as_an_answer_is_written_is_logged(caplog) -> None:
    async with serving() as served:
        served.headers = {"X-Two-Lines": "a\r\nb"}
        served.writer.write(ASK)
        assert await served.reader.read() == b""
    [record] = caplog.records
    assert isinstance(record.exc_info[1], ValueError)
    caplog.clear()


async def test_a_health_check_waits_for_no_turn() -> None:
    async with serving(admission=AdmissionPolicy(least=0, most=0)) as served:
        served.writer.write(HEALTH)
        await served.says("answer 1")


async def test_the_place_of_a_post_is_free_after_it() -> None:
    one = AdmissionPolicy(posts=1, post_wait_seconds=NEVER)
    async with serving(admission=one) as served:
        for number in (1, 2, 3):
            served.writer.write(POST)
            await served.says(f"answer {number}")


async def test_a_head_that_came_in_time_does_not_end_what_follows() -> None:
    async with serving(head_seconds=0.2) as served:
        served.may_answer.clear()
        for part in (ASK[:10], ASK[10:20], ASK[20:]):
            served.writer.write(part)
            await asyncio.sleep(0.02)  # so that the head comes in parts
        await served.began.wait()
        asyncio.get_running_loop().call_later(0.3, served.may_answer.set)
        await served.says("answer 1")
        served.writer.write(ASK)
        await served.says("answer 2")
        served.may_answer.clear()
        served.began.clear()
        served.writer.write(ASK)
        await served.began.wait()
        served.writer.write(ASK[:20])
        assert served.server.server
        [connection] = served.server.server.connections
        await eventually(lambda: connection._requests.has_ended)
        served.may_answer.set()  # the next head had as much time and no more, beside an answer
        await served.says("answer 3")
        await served.says("408")
