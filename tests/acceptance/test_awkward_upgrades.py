"""Upgrades that are hit at an awkward moment."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import client, environment, running
from tests.support.front_processes import delivered, two_fronts
from tests.support.installed import add_migration, install
from tests.support.storage import eventually

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n;"


async def test_a_process_becomes_the_version_that_was_killed_after_two_migrations(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    program = tmp_path / "program"
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url, **install(program)
    )
    async with running("serve", environment=settings) as alone, client() as poster:
        await poster.sign_in(alone.url)
        assert await poster.post(alone.url) == 200
        add_migration(program, "SELECT 1;", 1)
        add_migration(program, "SELECT 1;", 2)
        code = program / "service/processes/successor.py"
        text = code.read_text()
        killed = text.replace("line.ready()", "os.kill(os.getpid(), signal.SIGKILL)")
        assert killed != text
        code.write_text(killed)
        alone.process.send_signal(signal.SIGHUP)
        await alone.said("Upgrade failed: ")
        await alone.said("becomes the new version")
        await alone.said("Listening on", times=2)
        assert await poster.post(alone.url) == 200
        await delivered(inngest_api, poster.accepted)
        assert await alone.stop() == 0


async def test_a_stop_while_the_new_store_process_migrates_ends_the_service(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    program = tmp_path / "program"
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api, **install(program)) as (parent, _):
        add_migration(program, ENDLESS)
        parent.process.send_signal(signal.SIGHUP)
        await eventually(lambda: _is_migrating(tmp_path))
        assert await parent.stop() == 0


async def _is_migrating(folder: Path) -> bool:
    """Whether a process holds the lock under which it migrates."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
