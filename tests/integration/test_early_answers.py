"""Answers that come before a prepared request has begun: not a byte of it leaves by them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp

from service.inngest.inngest import InngestSender
from service.inngest.prepared_send import PreparedSend, WaitingBody
from service.inngest.send_result import SendResult
from service.supervisor import end
from tests.support.listening_server import ListeningServer

REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_refusal_before_it_begins_sends_nothing_with_the_other_key() -> None:
    found = ListeningServer()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REFUSED)
        await found.serve(reader, writer)

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        sender = InngestSender(
            http, origin=url, key="one", fallback_key="two", environment=None, timeout_seconds=30.0
        )
        prepared = sender.prepare(b'{"a":1}')
        assert (await prepared.result()).status == 403
        assert prepared.begin() is False
        await http.close()
        await found.until(lambda: all(one.is_closed for one in found.connections))
        assert found.received == b""


async def test_a_request_whose_answer_came_before_it_does_not_begin() -> None:
    writer: Any = None
    body = WaitingBody(b"[]")
    writing = asyncio.create_task(body.write_with_length(writer, None))
    answer: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()

    async def sending() -> SendResult:
        return await answer

    prepared = PreparedSend(body, sending())
    await asyncio.sleep(0)
    await end(writing)  # as aiohttp does when the answer is there
    assert prepared.begin() is False
    prepared.cancel()
