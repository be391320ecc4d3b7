"""Connections are accepted many a turn, from sockets that several processes share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from service.observe.recorder import NullRecorder
from service.processes.acceptor import listen_on
from service.processes.listening import open_listening
from service.web.server.proxies import Proxies, proxies_key
from service.web.server.server import HttpServer

WAITING = 50
TURNS = 8  # of the loop, from the accepted socket to its connection


@contextlib.asynccontextmanager
async def serving(listening: socket.socket, name: str) -> AsyncIterator[HttpServer]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=name)

    app = web.Application()
    app.router.add_get("/", answer)
    app[proxies_key] = Proxies(["127.0.0.1"])  # so that one peer may have all connections
    async with listen_on(app, NullRecorder(), [listening.dup()]) as server:
        yield server


async def asked(listening: socket.socket) -> str:
    """The answer on a connection of its own."""
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().rpartition("\n")[2]


async def test_many_connections_that_wait_are_accepted_in_one_turn() -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=WAITING))
        for _ in range(WAITING):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        async with serving(listening, "one") as server:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert server.server
            assert len(server.server.connections) == WAITING


async def test_connections_leave_a_quarter_of_few_file_descriptors_to_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (40, 40))
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=WAITING))
        for _ in range(WAITING):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        async with serving(listening, "one") as server:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert server.server
            assert len(server.server.connections) == 30


async def test_a_server_that_stops_leaves_the_socket_to_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serving(listening, "one"):
            async with serving(listening, "two"):
                assert await asked(listening) in {"one", "two"}
            assert {await asked(listening) for _ in range(20)} == {"one"}


async def test_sockets_that_were_meant_for_another_process_are_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with open_listening("127.0.0.1", 0) as listening:
        assert not listening.are_kept
    assert "LISTEN_FDS" not in os.environ  # no child takes the descriptors for its own
