"""Prepared requests over HTTP: nothing leaves before they begin, and then all of it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from service.inngest import prepared_send
from service.inngest.inngest import InngestSender
from service.inngest.prepared_send import MAX_BYTES
from service.inngest.send_result import SendResult
from tests.support.free_port import free_port
from tests.support.listening_server import TAKEN, ListeningServer, listening_server
from tests.support.storage import PATIENCE_SECONDS

BODY = b'[{"a":1}]'
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def keep_seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Change how long a request waits to begin: patiently, where the test changes nothing."""

    def change(seconds: float) -> None:
        monkeypatch.setattr(prepared_send, "KEEP_SECONDS", seconds)

    assert prepared_send.KEEP_SECONDS == 1.0
    change(PATIENCE_SECONDS)
    return change


@pytest.fixture
async def server() -> AsyncIterator[ListeningServer]:
    async with listening_server() as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


def sender(
    http: aiohttp.ClientSession, url: str, unreached: Callable[[Exception], object] | None = None
) -> InngestSender:
    return InngestSender(
        http,
        origin=url,
        key="one",
        fallback_key="two",
        environment=None,
        timeout_seconds=30.0,
        unreached=unreached,
    )


async def ready(server: ListeningServer) -> None:
    """Wait until the request could leave: there is a connection, and its task has run since."""
    await server.until(lambda: bool(server.connections))
    for _ in range(10):
        await asyncio.sleep(0)


async def test_not_a_byte_leaves_before_it_begins_and_then_the_whole_request(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    server.answers.append(TAKEN)
    prepared = sender(http, server.url).prepare(BODY[1:-1], "c2VlZA==,1")
    await ready(server)
    assert server.received == b""
    assert prepared.begin()
    assert await prepared.result() == SendResult(200, ("01J",))
    assert server.received.startswith(b"POST /e/one HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in server.received
    assert b"\r\nX-Inngest-Event-Id-Seed: c2VlZA==,1\r\n" in server.received
    assert b"\r\nContent-Length: 9\r\n" in server.received
    assert server.received.endswith(b"\r\n\r\n" + BODY)
    assert server.received.count(b"\r\n\r\n") == 1
    assert len(server.connections) == 1


async def test_a_request_that_begins_twice_leaves_once_and_has_begun_also_after_its_answer(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    server.answers.append(TAKEN)
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    await ready(server)
    assert prepared.begin()
    assert prepared.begin()
    assert (await prepared.result()).status == 200
    assert prepared.begin()
    assert server.received.count(BODY) == 1


async def test_a_request_that_begins_before_it_is_connected_leaves_as_soon_as_it_is(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    server.answers.append(TAKEN)
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    assert prepared.begin()
    assert await prepared.result() == SendResult(200, ("01J",))
    assert server.received.count(BODY) == 1


async def test_the_largest_body_leaves_whole(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    assert MAX_BYTES == 32 * 1024
    server.answers.append(TAKEN)
    prepared = sender(http, server.url).prepare(b"x" * MAX_BYTES)
    await ready(server)
    assert prepared.begin()
    assert (await prepared.result()).status == 200
    assert server.received.endswith(b"[" + b"x" * MAX_BYTES + b"]")


async def test_a_cancelled_request_leaves_nothing_and_closes_its_connection(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    await ready(server)
    prepared.cancel()
    assert prepared.begin() is False
    await server.until(lambda: server.connections[0].is_closed)
    assert prepared.begin() is False
    assert server.received == b""


async def test_a_request_that_does_not_begin_within_a_second_leaves_nothing(
    server: ListeningServer, http: aiohttp.ClientSession, keep_seconds: Callable[[float], None]
) -> None:
    keep_seconds(1.0)
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    await server.until(lambda: bool(server.connections) and server.connections[0].is_closed)
    assert prepared.begin() is False
    assert server.received == b""


async def test_a_request_that_has_begun_is_not_ended_after_a_second(
    server: ListeningServer, http: aiohttp.ClientSession, keep_seconds: Callable[[float], None]
) -> None:
    keep_seconds(1.0)
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    assert prepared.begin()  # at once: a second may pass before it is connected
    await ready(server)
    other = sender(http, server.url).prepare(BODY[1:-1])
    await server.until(lambda: len(server.connections) == 2 and server.connections[1].is_closed)
    assert not other.begin()
    server.connections[0].writer.write(TAKEN)
    assert (await prepared.result()).status == 200


async def test_a_connection_that_the_server_closed_does_not_begin(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    one = sender(http, server.url)
    prepared = one.prepare(BODY[1:-1])
    await ready(server)
    server.connections[0].writer.close()
    assert (await prepared.result()).status is None
    assert prepared.begin() is False
    server.answers.append(TAKEN)
    assert (await one.send(BODY[1:-1])).status == 200


async def test_a_connection_that_breaks_as_it_begins_is_a_fault_of_the_request(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    await ready(server)
    for connection in list(http.connector._acquired):  # type: ignore[union-attr]
        connection.transport.close()  # type: ignore[union-attr]
    assert prepared.begin()
    result = await prepared.result()
    assert (result.status, result.ids) == (None, None)
    assert server.received == b""


async def test_a_server_that_is_away_does_not_begin(http: aiohttp.ClientSession) -> None:
    one = sender(http, f"http://127.0.0.1:{free_port()}")
    prepared = one.prepare(BODY[1:-1])
    result = await prepared.result()
    assert result == await one.send(BODY[1:-1])
    assert prepared.begin() is False


@pytest.mark.parametrize("begins", [False, True])
async def test_a_connection_that_was_not_made_is_told_once_by_a_request_that_has_begun(
    http: aiohttp.ClientSession, *, begins: bool
) -> None:
    told: list[Exception] = []
    one = sender(http, f"http://127.0.0.1:{free_port()}", told.append)
    prepared = one.prepare(BODY[1:-1])
    assert not begins or prepared.begin()
    assert not (await prepared.result()).reached
    assert len(told) == begins
    await one.send(BODY[1:-1])
    assert len(told) == begins + 1


async def test_a_prepared_request_uses_the_other_key_where_the_first_is_refused(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    server.answers += [REFUSED, TAKEN]
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    await ready(server)
    assert prepared.begin()
    assert (await prepared.result()).status == 200
    assert server.received.count(BODY) == 2
    assert server.received.count(b"POST /e/two ") == 1


async def test_who_waits_for_the_result_can_end_the_request(
    server: ListeningServer, http: aiohttp.ClientSession
) -> None:
    prepared = sender(http, server.url).prepare(BODY[1:-1])
    await ready(server)
    assert prepared.begin()
    waiting = asyncio.create_task(prepared.result())
    await server.until(lambda: BODY in server.received)
    waiting.cancel()
    await server.until(lambda: server.connections[0].is_closed)
    with pytest.raises(asyncio.CancelledError):
        await waiting
