"""A sync that fails within `outbox move` and `outbox backup`: an error, and nothing half done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.support.disk_shim import DiskShim
from tests.support.storage import PATIENCE_SECONDS, SqliteStorage, append_all

ROOT = Path(__file__).parents[2]
UNNAMED = " (deleted)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
async def source(tmp_path: Path) -> tuple[Path, list[str]]:
    path = tmp_path / "source.db"
    async with SqliteStorage(path).open() as outbox:
        return path, [one.id for one in await append_all(outbox, 40)]


async def command(shim: DiskShim, *arguments: str) -> tuple[int, str]:
    """The exit code and the errors of `outbox …`."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            "from inngest_outbox.console.commands.main import app; app()",
            *arguments,
        ),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/service", **shim.environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()


def stored(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [one for (one,) in connection.execute("SELECT event_id FROM outbox ORDER BY seq")]


@pytest.mark.parametrize(
    "what", [UNNAMED, pytest.param("/disk", marks=pytest.mark.slow)], ids=["copy", "folder"]
)
async def test_a_backup_whose_sync_fails_leaves_nothing_and_can_be_repeated(
    folder: Path, source: tuple[Path, list[str]], what: str
) -> None:
    path, ids = source
    shim, copy = DiskShim(folder), folder / "copy.db"
    backup = ("backup", str(copy), "--url", f"sqlite:///{path}")
    shim.fail_next_sync(what)
    code, errors = await command(shim, *backup)
    assert shim.has_failed
    assert code != 0
    assert "copy.db can't be used: Input/output error" in errors.replace("\n", "")
    assert os.listdir(folder) == []  # noqa: PTH208  (a path's iterdir is not for async code)
    assert (await command(shim, *backup))[0] == 0
    assert stored(copy) == ids


async def test_a_move_whose_sync_fails_says_so_and_is_finished_by_a_repetition(
    folder: Path, source: tuple[Path, list[str]]
) -> None:
    path, ids = source
    shim, target = DiskShim(folder), folder / "target.db"
    move = ("move", "--to", f"sqlite:///{target}", "--url", f"sqlite:///{path}")
    for number in range(2):
        shim.fail_next_sync("target.db-wal")
        code, errors = await command(shim, *move)
        assert shim.has_failed, number
        assert code != 0
        assert "error" in errors
    assert (await command(shim, *move))[0] == 0
    assert stored(target) == ids
