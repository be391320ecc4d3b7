"""A service manager is told of each state of the process, and that its event loop turns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inngest_outbox.observe.service_manager import ServiceManager
from tests.support.storage import PATIENCE_SECONDS
from tests.support.virtual_time import in_virtual_time

PING = "WATCHDOG=1"
READY, STOPPING = "READY=1\nSTATUS=Listening", "STOPPING=1\nSTATUS=Stopping"
SOON = "300000"  # microseconds


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, short_path: Path) -> str:
    return str(short_path / "s") if request.param == "file" else f"@outbox-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address.replace("@", "\0", 1))
        bound.settimeout(0)
        yield bound


async def told(manager: socket.socket) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode()


async def test_it_is_told_that_the_process_is_ready_alive_and_stopping(
    manager: socket.socket, address: str
) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": SOON}
    async with ServiceManager(environment).told("Listening"):
        assert [await told(manager) for _ in range(4)] == [READY, PING, PING, PING]
    while (last := await told(manager)) == PING:
        pass
    assert last == STOPPING
    await asyncio.sleep(0)
    assert "ping-watchdog" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": SOON, "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_for_this_process_it_is_not_pinged(
    manager: socket.socket, address: str, watchdog: dict[str, str]
) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with ServiceManager({"NOTIFY_SOCKET": address, **watchdog}).told("Listening"):
            await asyncio.sleep(0)
            raise ZeroDivisionError
    assert [await told(manager), await told(manager)] == [READY, STOPPING]


@in_virtual_time
async def test_it_is_pinged_well_before_its_patience_ends(
    manager: socket.socket, address: str
) -> None:
    async with ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"}).watched():
        await asyncio.sleep(59)
    pings = 0
    with contextlib.suppress(BlockingIOError):
        while manager.recv(4096):
            pings += 1
    assert pings == 6


async def test_a_reload_says_when_it_began_on_the_managers_clock(
    manager: socket.socket, address: str
) -> None:
    before = time.monotonic_ns() // 1000
    ServiceManager({"NOTIFY_SOCKET": address}).reloading()
    said = dict(line.split("=") for line in (await told(manager)).splitlines())
    assert before <= int(said.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert said == {"RELOADING": "1", "STATUS": "A new version takes over"}


def test_a_manager_that_is_busy_or_gone_holds_up_nobody(
    manager: socket.socket, address: str
) -> None:
    one = ServiceManager({"NOTIFY_SOCKET": address})
    for _ in range(2000):  # more than its queue takes
        one.ready("Listening")
    manager.close()
    one.stopping()
    ServiceManager({}).stopping()
