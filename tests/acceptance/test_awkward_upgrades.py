"""Upgrades that are hit at an awkward moment, and versions that are not whole."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from inngest_outbox.config.outbox_url import sqlite_file
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.processes.process_pool import STOPS
from tests.support.front_processes import all_gone, children_of, two_fronts
from tests.support.installed import add_migration, install
from tests.support.migrating import ENDLESS, ENDLESS_ON_POSTGRES, is_migrating
from tests.support.notified import notified
from tests.support.outbox_command import outbox_command, outbox_process
from tests.support.storage import eventually

pytestmark = pytest.mark.slow

CONTINUES = "outbox: The old version continues."


async def test_a_stop_while_the_new_store_process_migrates_ends_the_service_and_gives_it_up(
    tmp_path: Path, short_path: Path, inngest_api: FakeInngest
) -> None:
    program, url = tmp_path / "program", f"sqlite:///{tmp_path / 'outbox.db'}"
    with notified(short_path) as manager:
        settings = {**install(program), **manager.environment}
        async with two_fronts(url, inngest_api, **settings) as (parent, _):
            add_migration(program, ENDLESS)
            upgrading = asyncio.create_task(outbox_process("upgrade", "--url", url))
            await eventually(lambda: is_migrating(url))
            assert await parent.stop() == 0
            assert await upgrading == (2, f"outbox: {STOPS}\n")
        assert manager.states() == ["READY=1", "RELOADING=1", "STOPPING=1"]


async def test_a_parent_that_is_killed_while_a_child_migrates_leaves_no_child_and_no_lock(
    tmp_path: Path, inngest_api: FakeInngest, store_url: str
) -> None:
    program = tmp_path / "program"
    async with two_fronts(store_url, inngest_api, **install(program)) as (parent, _):
        add_migration(program, ENDLESS if sqlite_file(store_url) else ENDLESS_ON_POSTGRES)
        parent.process.send_signal(signal.SIGHUP)
        await eventually(lambda: is_migrating(store_url))
        children = children_of(parent)
        parent.kill()
        await parent.ended()
        await all_gone(children)
        await eventually(lambda: is_migrating(store_url), lambda held: not held)


@pytest.mark.faulty
async def test_a_version_with_a_module_that_does_not_load_changes_nothing(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    program, outbox = tmp_path / "program", tmp_path / "outbox.db"
    async with two_fronts(f"sqlite:///{outbox}", inngest_api, **install(program)) as (
        parent,
        poster,
    ):
        before = children_of(parent)
        for name, module in (
            ("Store process", "service/inngest_outbox/relay/relay.py"),
            ("Front process 1", "service/inngest_outbox/bootstrap/web.py"),
            # the SDK, which no module loads at its beginning
            ("Store process", "service/inngest.py"),
        ):
            broken = program / module
            text = broken.read_text() if broken.exists() else ""
            broken.write_text(f"import no_such_module\n{text}")
            code, out, err = await outbox_command(outbox, "upgrade")
            assert (code, out) == (2, "")
            what = f"{name} of the new version did not load: It ended with 1; see its log."
            assert err == f"{CONTINUES} {what}\n"
            assert children_of(parent) == before
            assert await poster.post(parent.url) == 200
            broken.write_text(text)


async def test_a_store_that_can_not_write_takes_the_outbox_from_no_other(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    program = tmp_path / "program"
    outbox = tmp_path / "outbox.db"
    async with two_fronts(f"sqlite:///{outbox}", inngest_api, **install(program)) as (
        parent,
        poster,
    ):
        before = children_of(parent)
        add_migration(program, "SELECT 1;")  # the old version runs on the schema after its own
        code = program / "service/inngest_outbox/outbox/sqlite/health.py"
        text = code.read_text()
        code.write_text(
            text + "\n\nSqliteHealth.failure = property(lambda _: 'The disk is full.')\n"
        )
        code_, _, err = await outbox_command(outbox, "upgrade")
        assert code_ == 2
        assert err.startswith(CONTINUES)
        assert "The disk is full." in err
        assert children_of(parent) == before
        assert await poster.post(parent.url) == 200
