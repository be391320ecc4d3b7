"""SIGHUP: a service of several processes is replaced by a new version."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Client, Process, client
from tests.support.front_processes import children_of, delivered, two_fronts
from tests.support.installed import add_migration, install
from tests.support.notified import notified
from tests.support.outbox_command import outbox_command, outbox_process

PACE_SECONDS = 0.02


async def test_an_upgrade_under_load_refuses_no_post_and_uses_a_kept_connection_once_more(
    memory_path: Path, short_path: Path, inngest_api: FakeInngest
) -> None:
    """One that does not load changes nothing."""
    settings_file = memory_path / "settings.json"
    settings_file.write_text("{}")
    url = f"sqlite:///{memory_path / 'outbox.db'}"
    with notified(short_path) as manager:
        told = {**manager.environment, "WATCHDOG_USEC": "3000000000"}  # once in this test
        given = {"APP_SETTINGS_FILE": str(settings_file), **told}
        async with two_fronts(url, inngest_api, **given) as (parent, poster):
            before = children_of(parent)
            async with posting(parent, poster):
                settings_file.write_text("no JSON")
                parent.process.send_signal(signal.SIGHUP)
                await parent.said("Upgrade failed: The old version continues.*APP_SETTINGS_FILE")
                assert set(children_of(parent)) == set(before)
                settings_file.write_text("{}")
                await closes_a_kept_connection(url, parent)
                await parent.said("Upgrade: done")
                assert not set(before) & set(children_of(parent))
                assert len(children_of(parent)) == 3
            assert (poster.refused, poster.broken) == ([], 0)
            await delivered(inngest_api, poster.accepted)
            assert await parent.stop() == 0
        said = [manager.bound.recv(4096).decode() for _ in range(7)]
        ready = f"READY=1\nSTATUS=Listening on {parent.url} with 2 front processes"
        assert [one for one in said if "RELOADING=1\n" not in one] == [
            *("WATCHDOG=1", ready, ready, ready, "STOPPING=1\nSTATUS=Stopping")
        ]
        assert said[2].startswith("RELOADING=1\n")


@contextlib.asynccontextmanager
async def posting(parent: Process, poster: Client) -> AsyncIterator[None]:
    """Post on three connections all the while; `poster` has what became of it."""
    stop = asyncio.Event()

    async def post() -> None:
        async with client() as own:
            await own.sign_in(parent.url)
            while not stop.is_set():
                await own.post(parent.url)
                await asyncio.sleep(PACE_SECONDS)
            poster.accepted += own.accepted
            poster.refused += own.refused
            poster.broken += own.broken

    async with asyncio.TaskGroup() as posts:
        for _ in range(3):
            posts.create_task(post())
        yield
        stop.set()


async def closes_a_kept_connection(url: str, parent: Process) -> None:
    """Upgrade, asked by the command and by a signal at the same time."""
    loads = "Upgrade: the new version loads"
    earlier = sum(loads in line for line in parent.lines)
    host, port = parent.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
    upgrading = asyncio.create_task(outbox_process("upgrade", "--url", url))
    await parent.said(loads, times=earlier + 1)
    parent.process.send_signal(signal.SIGHUP)
    closes = False
    while not closes:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        [length] = re.findall(rb"content-length: (\d+)", head.lower())
        await reader.readexactly(int(length))
        closes = b"connection: close" in head.lower()
        await asyncio.sleep(PACE_SECONDS)
    assert await reader.read() == b""
    writer.close()
    await asyncio.sleep(2.5)  # longer than a stop would leave them
    for reader, writer in idle:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert await upgrading == (0, "The new version serves.\n")
    assert sum(loads in line for line in parent.lines) == earlier + 1


@pytest.mark.slow
async def test_a_new_store_that_can_not_migrate_gives_the_outbox_back_and_one_that_can_keeps_it(
    memory_path: Path, inngest_api: FakeInngest
) -> None:
    program = memory_path / "program"
    path = memory_path / "outbox.db"
    async with two_fronts(f"sqlite:///{path}", inngest_api, **install(program)) as (parent, poster):
        before = children_of(parent)
        add_migration(program, "ALTER TABLE absent ADD COLUMN more;")
        parent.process.send_signal(signal.SIGHUP)
        await parent.said("Upgrade failed: .*no such table: absent")
        assert set(children_of(parent)) == set(before)
        assert await poster.post(parent.url) == 200
        add_migration(program, "ALTER TABLE outbox ADD COLUMN more TEXT;")
        async with posting(parent, poster):
            code, out, _ = await outbox_command(path, "upgrade")
        assert (code, out) == (0, "The new version serves.\n")
        assert not set(children_of(parent)) & set(before)
        assert (poster.refused, poster.broken) == ([], 0)
        await delivered(inngest_api, poster.accepted)
        with contextlib.closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT count(more) FROM outbox").fetchall() == [(0,)]
