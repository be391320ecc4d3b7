"""SIGHUP: a service of several processes is replaced by a new version."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sqlite3
from pathlib import Path

import pytest

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process, client
from tests.support.front_processes import children_of, delivered, two_fronts
from tests.support.installed import add_migration, install
from tests.support.notified import notified
from tests.support.outbox_command import outbox_command, outbox_process

PACE_SECONDS = 0.02


async def test_an_upgrade_under_load_refuses_no_post_and_one_that_does_not_load_changes_nothing(
    memory_path: Path, inngest_api: FakeInngest
) -> None:
    settings_file = memory_path / "settings.json"
    settings_file.write_text("{}")
    url = f"sqlite:///{memory_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api, APP_SETTINGS_FILE=str(settings_file)) as (
        parent,
        poster,
    ):
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

        posting = [asyncio.create_task(post()) for _ in range(8)]
        before = children_of(parent)
        settings_file.write_text("no JSON")
        parent.process.send_signal(signal.SIGHUP)
        await parent.said("Upgrade failed: The old version continues.*APP_SETTINGS_FILE")
        assert set(children_of(parent)) == set(before)
        settings_file.write_text("{}")
        parent.process.send_signal(signal.SIGHUP)
        await parent.said("Upgrade: done")
        assert not set(before) & set(children_of(parent))
        assert len(children_of(parent)) == 3
        stop.set()
        await asyncio.gather(*posting)
        assert (poster.refused, poster.broken) == ([], 0)
        await delivered(inngest_api, poster.accepted)
        assert await parent.stop() == 0


@pytest.mark.slow
async def test_a_new_store_that_can_not_migrate_gives_the_outbox_back(
    memory_path: Path, inngest_api: FakeInngest
) -> None:
    program = memory_path / "program"
    url = f"sqlite:///{memory_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api, **install(program)) as (parent, poster):
        before = children_of(parent)
        add_migration(program, "ALTER TABLE absent ADD COLUMN more;")
        parent.process.send_signal(signal.SIGHUP)
        await parent.said("Upgrade failed: .*no such table: absent")
        assert set(children_of(parent)) == set(before)
        assert await poster.post(parent.url) == 200
        add_migration(program, "SELECT 1;")
        code, out, _ = await outbox_command(memory_path / "outbox.db", "upgrade")
        assert (code, out) == (0, "The new version serves.\n")
        assert not set(children_of(parent)) & set(before)


@pytest.mark.slow
async def test_an_upgrade_with_a_migration_refuses_no_post(
    memory_path: Path, inngest_api: FakeInngest
) -> None:
    program = memory_path / "program"
    url = f"sqlite:///{memory_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api, **install(program)) as (parent, poster):
        add_migration(program, "ALTER TABLE outbox ADD COLUMN more TEXT;")
        parent.process.send_signal(signal.SIGHUP)
        upgraded = asyncio.create_task(parent.said("Upgrade: done"))
        while not upgraded.done():
            assert await poster.post(parent.url) == 200
        await delivered(inngest_api, poster.accepted)
        with contextlib.closing(sqlite3.connect(memory_path / "outbox.db")) as file:
            assert file.execute("SELECT count(more) FROM outbox").fetchall() == [(0,)]


async def test_a_kept_connection_is_used_once_more_after_an_upgrade_and_then_closed(
    memory_path: Path, short_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{memory_path / 'outbox.db'}"
    with notified(short_path) as manager:
        async with two_fronts(url, inngest_api, **manager.environment) as (parent, _):
            await closes_a_kept_connection(url, parent)
            assert await parent.stop() == 0
        assert manager.states() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


async def closes_a_kept_connection(url: str, parent: Process) -> None:
    host, port = parent.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
    upgrading = asyncio.create_task(outbox_process("upgrade", "--url", url))
    await parent.said("Upgrade: the new version loads")
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
    assert sum("Upgrade: the new version loads" in line for line in parent.lines) == 1
