"""A client that reads nothing of its answer for a minute is dropped, one that pauses is not.

A head must come whole in ten seconds. A stop waits once for all requests of a connection.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any
from unittest import mock

import pytest
from aiohttp import web

from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.web.server.connection import Connection, ConnectionRules
from inngest_outbox.web.server.server import ServerPolicy
from tests.support.virtual_time import in_virtual_time, now


async def not_asked(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError


async def never(_: web.BaseRequest) -> web.StreamResponse:
    return await asyncio.Event().wait()  # type: ignore[return-value]


def connected(
    handler: Any = not_asked, keep_alive_seconds: float = 3600.0
) -> tuple[Connection, mock.Mock]:
    loop, policy = asyncio.get_running_loop(), ServerPolicy()
    connection = Connection(
        web.Server(handler),
        loop=loop,
        rules=ConnectionRules(
            recorder=NullRecorder(),
            head_seconds=policy.head_seconds,
            unread_seconds=policy.unread_seconds,
            admit=lambda _: True,
            parses_now=lambda _: True,
        ),
        keepalive_timeout=keep_alive_seconds,
    )
    transport = mock.Mock(spec=asyncio.Transport)
    connection.connection_made(transport)
    return connection, transport


@in_virtual_time
async def test_who_reads_nothing_for_a_minute_is_dropped_and_who_pauses_is_kept() -> None:
    connection, transport = connected()
    for _ in range(3):
        connection.pause_writing()
        await asyncio.sleep(40.0)
        connection.resume_writing()
    await asyncio.sleep(600.0)
    connection.pause_writing()
    await asyncio.sleep(59.0)
    assert not transport.abort.called
    await asyncio.sleep(2.0)
    assert transport.abort.called
    connection.connection_lost(None)


@in_virtual_time
async def test_a_head_that_comes_by_the_byte_has_ten_seconds() -> None:
    connection, transport = connected()
    await asyncio.sleep(0)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: here\r\nX-Slow: ")
    for _ in range(9):
        await asyncio.sleep(1.0)
        connection.data_received(b"x")
    assert not transport.close.called
    await asyncio.sleep(1.5)
    assert transport.close.called
    connection.connection_lost(None)


@in_virtual_time
async def test_an_idle_connection_is_kept_for_longer_than_a_minute() -> None:
    connection, transport = connected(keep_alive_seconds=ServerPolicy().keep_alive_seconds)
    await asyncio.sleep(74.0)  # proxies keep theirs for 60 s, and may use one then
    assert not transport.close.called
    await asyncio.sleep(2.0)
    assert transport.close.called
    connection.connection_lost(None)


@pytest.mark.parametrize("requests", [1, 2])
@in_virtual_time
async def test_a_stop_waits_fifteen_seconds_in_all(requests: int) -> None:
    connection, _ = connected(never)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * requests)
    await asyncio.sleep(1.0)
    await connection.shutdown(ServerPolicy().shutdown_seconds)
    assert now() == 16.0
    connection.connection_lost(None)


@pytest.mark.parametrize("waits_for", ["the rest of a head", "a reader"])
@in_virtual_time
async def test_a_connection_that_is_lost_is_freed_at_once(waits_for: str) -> None:
    connection, transport = connected()
    await asyncio.sleep(0)  # it begins
    if waits_for == "a reader":
        connection.pause_writing()
    else:
        connection.data_received(b"GET / HTTP/1.1\r\nHost: here\r\n")
    share = mock.Mock()
    connection.body_share, held = share, weakref.ref(share)
    connection.connection_lost(None)
    del connection, share
    await asyncio.sleep(1.0)
    gc.collect()
    assert held() is None
    await asyncio.sleep(60.0)
    assert not transport.abort.called
