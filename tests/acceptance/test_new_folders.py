"""A first event in a folder that is made for it: every new name is synced before the answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.disk_shim import DiskShim, read_record

ANSWER = """
import asyncio, sys
from pathlib import Path
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.storage import LIMITS, event

async def main(path):
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await outbox.intake.append(event())
        (path.parents[2] / "answer").write_text("stored")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_the_entry_of_each_new_folder_is_synced_in_its_parent(tmp_path: Path) -> None:
    disk, record = tmp_path / "disk", tmp_path / "record"
    disk.mkdir()
    path = disk / "new" / "newer" / "outbox.db"
    shim = DiskShim(disk, record=record)
    subprocess.run(
        [sys.executable, "-c", ANSWER, str(path)],
        check=True,
        env={**os.environ, **shim.environment},
        timeout=60,
    )
    operations = [(one.operation, one.path) for one in read_record(record)]
    answered = operations.index(("C", str(disk / "answer")))
    synced = {name for kind, name in operations[:answered] if kind == "S"}
    assert {str(folder) for folder in path.parents[:3]} <= synced
