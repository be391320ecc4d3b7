"""Connections are accepted many a turn, from sockets that several processes share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inngest_outbox.errors import ConfigurationError
from inngest_outbox.observe.file_descriptors import is_out_of_descriptors
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.processes.acceptor import listen_on
from inngest_outbox.processes.listening import open_listening
from inngest_outbox.web.server.proxies import Proxies, proxies_key
from inngest_outbox.web.server.server import HttpServer
from tests.support.open_files import open_files
from tests.support.storage import PATIENCE_SECONDS, eventually

HERE = ("127.0.0.1", 0)
WAITING = 50
TURNS = 8  # of the loop, from the accepted socket to its connection


@contextlib.asynccontextmanager
async def serving(
    listening: socket.socket, name: str, *others: socket.socket
) -> AsyncIterator[HttpServer]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=name)

    app = web.Application()
    app.router.add_get("/", answer)
    app[proxies_key] = Proxies(["127.0.0.1"])  # so that one peer may have all connections
    async with listen_on(app, NullRecorder(), [listening.dup(), *others]) as server:
        yield server


async def asked(listening: socket.socket) -> str:
    """The answer on a connection of its own."""
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().rpartition("\n")[2]


async def accepted_at_once() -> int:
    """The number of WAITING connections that are accepted in a few turns."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=WAITING))
        for _ in range(WAITING):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        async with serving(listening, "one") as server:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert server.server
            return len(server.server.connections)


async def test_many_connections_that_wait_are_accepted_in_one_turn() -> None:
    assert await accepted_at_once() == WAITING


@pytest.mark.parametrize(("wanted", "left"), [(256, 10), (6, 6)])
async def test_connections_leave_some_or_of_few_a_quarter_of_file_descriptors_to_the_process(
    monkeypatch: pytest.MonkeyPatch, wanted: int, left: int
) -> None:
    monkeypatch.setattr("inngest_outbox.processes.acceptor._OWN_HANDLES", wanted)
    monkeypatch.setattr("resource.getrlimit", lambda _: (40, 400))
    assert await accepted_at_once() == 40 - left


def tasks() -> int:
    gc.collect()
    return sum(type(one) is asyncio.Task for one in gc.get_objects())


async def test_a_server_that_stops_leaves_the_socket_to_the_others() -> None:
    with socket.create_server(HERE) as listening, socket.create_server(HERE) as other:
        async with serving(listening, "one", other), asyncio.timeout(PATIENCE_SECONDS):
            async with serving(listening, "two"):
                assert await asked(listening) in {"one", "two"}
            earlier = tasks()
            assert {await asked(listening) for _ in range(20)} == {"one"}
            assert await asked(other) == "one"
            assert tasks() < earlier + 10  # no connection leaves its own


class Troubled(socket.socket):
    """A listening socket whose `accept` raises `faults` first, and counts its calls.

    `turns` are the calls of each turn of the loop.
    """

    def __init__(self, listening: socket.socket, faults: list[int]) -> None:
        super().__init__(fileno=listening.detach())
        self.faults = faults
        self.accepts = 0
        self.turns = [0]

    def dup(self) -> Troubled:
        return self

    async def were_accepts(self, count: int) -> None:
        await eventually(lambda: self.accepts >= count)

    def accept(self) -> tuple[socket.socket, object]:
        self.accepts += 1
        if not self.turns[-1]:
            asyncio.get_running_loop().call_soon(self.turns.append, 0)
        self.turns[-1] += 1
        if self.faults:
            raise OSError(self.faults.pop(0), "in trouble")
        return super().accept()


@pytest.mark.parametrize(
    ("fault", "rests"),
    [
        (errno.EMFILE, True),
        (errno.ENFILE, True),
        (errno.ENOBUFS, True),
        (errno.ENOMEM, True),
        (errno.ECONNABORTED, False),
    ],
    ids=str,
)
async def test_a_shortage_is_waited_out_and_a_client_that_has_gone_is_not(
    fault: int, monkeypatch: pytest.MonkeyPatch, *, rests: bool
) -> None:
    loop, rested = asyncio.get_running_loop(), list[tuple[float, int]]()
    later = loop.call_later
    faults = [fault] * (2 if rests else 100)
    with Troubled(socket.create_server(("127.0.0.1", 0)), faults) as listening:

        def sooner(seconds: float, then: Callable[..., object], *given: Any) -> asyncio.TimerHandle:
            if listening.accepts not in (1, 2):
                return later(seconds, then, *given)

            def resume() -> None:
                rested.append((seconds, listening.accepts))
                then(*given)

            return later(0, resume)

        monkeypatch.setattr(loop, "call_later", sooner)
        async with serving(listening, "one"), asyncio.timeout(PATIENCE_SECONDS):
            assert await asked(listening) == "one"
    assert rested == ([(0.1, 1), (0.1, 2)] if rests else [])
    assert listening.turns == ([1, 1, 2, 0] if rests else [64, 38, 0])


async def test_a_client_that_goes_while_it_is_connected_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gone(*_: object) -> None:
        monkeypatch.undo()
        raise OSError

    with socket.create_server(HERE) as listening:
        async with serving(listening, "one"), asyncio.timeout(PATIENCE_SECONDS):
            monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", gone)
            assert [await asked(listening) for _ in range(2)] == ["", "one"]


async def test_a_stop_in_a_shortage_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inngest_outbox.processes.acceptor._FULL_SECONDS", 0.05)
    with Troubled(socket.create_server(("127.0.0.1", 0)), []) as listening:
        async with serving(listening, "one") as server:
            with socket.create_connection(listening.getsockname()):
                await listening.were_accepts(1)
                listening.faults = [errno.EMFILE] * 10**6
                with socket.create_connection(listening.getsockname()):
                    await listening.were_accepts(3)
                    await server.let_go(0)
                    await asyncio.sleep(0.1)  # longer than that rest


class Noted(socket.socket):
    """A listening socket that tells when it has accepted a client."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self.accepted = asyncio.Event()

    def accept(self) -> tuple[socket.socket, object]:
        taken = super().accept()
        self.accepted.set()
        return taken


async def test_a_client_that_is_being_accepted_at_a_stop_is_answered_before_its_end() -> None:
    answered = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        answered.set()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    with (
        Noted(socket.create_server(("127.0.0.1", 0))) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        async with listen_on(app, NullRecorder(), [listening]) as server:
            await listening.accepted.wait()
            await server.let_go(PATIENCE_SECONDS)
            assert answered.is_set()


def test_an_address_of_another_machine_is_named() -> None:
    with (
        pytest.raises(
            OSError,
            match=r"^\[Errno 99\] .* address: http://192\.0\.2\.1:3000; set HOST or PORT$",
        ),
        open_listening("192.0.2.1", 3000),
    ):
        pass


def test_every_address_of_a_host_has_one_port_and_those_of_other_machines_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here: list[tuple[Any, ...]]
    here = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))] * 2  # of two names
    here.append((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 0, 0, 0)))
    elsewhere = [
        (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("fe80::1", 0, 0, 1)),  # of one network alone
        (socket.AF_X25, socket.SOCK_STREAM, 0, "", ("1", 0)),  # as IPv6 without it in the kernel
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*elsewhere, *here])
    with open_listening("a-name", 0) as listening:
        hosts, ports = zip(*(one.getsockname()[:2] for one in listening.sockets), strict=True)
        assert hosts == ("127.0.0.1", "::1")[: 1 + socket.has_dualstack_ipv6()]
        assert {f"http://a-name:{port}" for port in ports} == {listening.url}
        for _ in range(6 * WAITING):  # they wait to be accepted
            with socket.socket() as client:
                client.settimeout(PATIENCE_SECONDS)
                client.connect(("127.0.0.1", ports[0]))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    cannot = r"Cannot assign requested address: http://a-name:0; set HOST or PORT$"
    with pytest.raises(OSError, match=cannot), open_listening("a-name", 0):
        pass
    with socket.create_server(HERE) as taken:
        port = taken.getsockname()[1]
        found = [(*here[0][:4], (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        in_use = f"Address already in use: http://a-name:{port}; set HOST or PORT$"
        with pytest.raises(OSError, match=in_use), open_listening("a-name", port):
            pass
        socket.create_server(("127.0.0.2", port)).close()  # nobody listens there


def test_an_address_is_listened_at_again_though_a_client_s_connection_has_just_ended() -> None:
    with open_listening("127.0.0.1", 0) as listening:
        address = listening.sockets[0].getsockname()
        with socket.create_connection(address) as client:
            listening.sockets[0].accept()[0].close()  # first, so that this side keeps its address
            assert client.recv(1) == b""
    with open_listening(*address):
        pass


def test_the_look_for_a_shortage_leaves_no_file_open() -> None:
    before = open_files("/dev/null")
    assert not is_out_of_descriptors()
    assert open_files("/dev/null") == before


@pytest.mark.parametrize(("is_ours", "count"), [(False, "1"), (True, "")])
async def test_sockets_that_were_meant_for_another_process_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, count: str, *, is_ours: bool
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if is_ours else 1))
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", "http")
    with open_listening("127.0.0.1", 0):
        pass
    left = [name for name in os.environ if name.startswith("LISTEN_")]
    assert left == []  # no child takes the descriptors for its own


def passed(monkeypatch: pytest.MonkeyPatch, *sockets: socket.socket) -> int:
    """Make sockets those that systemd has passed to this process; their first descriptor."""
    first = 800
    for handle, one in enumerate(sockets, first):
        os.dup2(one.fileno(), handle)
        one.close()
    monkeypatch.setattr("inngest_outbox.processes.listening._FIRST_PASSED", first)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(len(sockets)))
    return first


async def test_a_socket_of_systemd_says_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in made]
    passed(monkeypatch, *made)
    with open_listening("192.0.2.1", 3000) as listening:
        assert listening.url == f"http://127.0.0.1:{ports[0]}"
        assert [one.getsockname()[1] for one in listening.sockets] == ports
        assert not any(os.get_inheritable(one.fileno()) for one in listening.sockets)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_ipv6_is_in_brackets_in_the_url_also_where_systemd_has_opened_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_listening("::1", 0) as listening:
        assert listening.url == f"http://[::1]:{listening.sockets[0].getsockname()[1]}"
        passed(monkeypatch, *listening.sockets)
        with open_listening("127.0.0.1", 0) as given:
            assert given.url == listening.url


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM", "AF_UNIX", "a file", "closed"])
async def test_a_descriptor_that_does_not_listen_is_named(
    kind: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Any
    if kind == "a file":
        made = (short_path / "f").open("w")
    elif kind == "AF_UNIX":
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(short_path / "s"))
        made.listen()
    else:
        made = socket.socket(socket.AF_INET, getattr(socket, kind, socket.SOCK_STREAM))
    handle = passed(monkeypatch, made)
    if kind == "closed":
        os.close(handle)
    with (
        pytest.raises(ConfigurationError) as error,
        open_listening("127.0.0.1", 0),
    ):
        pass
    fault = f"LISTEN_FDS: descriptor {handle} is not a listening TCP socket"
    assert error.value.faults == (fault,)
