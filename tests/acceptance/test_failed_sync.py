"""A sync of the disk that fails once: nothing is answered on a log with a hole."""

from __future__ import annotations

from pathlib import Path

from tests.support import disks
from tests.support.disk_shim import DiskShim
from tests.support.storage import eventually
from tests.support.trial import Trial, trial

_SALT = slice(16, 24)


def salt(one: Trial) -> bytes:
    """What marks one generation of the write-ahead log; emptying the log changes it."""
    with Path(f"{one.path}-wal").open("rb") as log:
        return log.read(32)[_SALT]


async def test_after_a_failed_sync_nothing_is_answered_on_the_old_log(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    shim = DiskShim(folder)
    async with trial(folder / "outbox.db", **shim.environment) as one, one.serving() as service:
        async with one.load.running():
            await one.load.takes(50)
            before = salt(one)
            shim.fail_next_sync("outbox.db-wal")
            await eventually(lambda: shim.has_failed)
            accepted = len(one.load.accepted)
            await eventually(lambda: len(one.load.accepted) > accepted + 8)
            assert salt(one) != before
            await one.load.takes(50)
        assert any("disk_failed" in line for line in service.lines)
        (await disks.verdict(one, "failed sync")).check()
