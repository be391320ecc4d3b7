"""Upgrades that are hit at an awkward moment."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

from service.fake_inngest.server import FakeInngest
from tests.support.front_processes import two_fronts
from tests.support.installed import add_migration, install
from tests.support.storage import eventually

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n;"


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
