"""A forked process of the service is like one that started by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.fleet import ROOT, environment
from tests.support.preloaded import PreloadedProcess, can_start, start
from tests.support.storage import PATIENCE_SECONDS

STARTED = "Listening on"


def variables(path: Path, **changes: str) -> dict[str, str]:
    settings = environment(f"sqlite:///{path / 'outbox.db'}", "http://127.0.0.1:9", **changes)
    return {**os.environ, "PYTHONPATH": str(ROOT), **settings}


async def what_it_says(process: PreloadedProcess | asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit code and its whole output."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        said = await process.stdout.read()
        return await process.wait(), said.decode()


async def test_it_says_what_a_process_of_its_own_says_and_ends_with_its_code(
    tmp_path: Path,
) -> None:
    wrong = variables(tmp_path, OUTBOX_MAX_PENDING="none")
    own = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "serve"),
        cwd=tmp_path,
        env=wrong,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    code, said = await what_it_says(own)
    assert code == 2
    assert "OUTBOX_MAX_PENDING" in said
    assert await what_it_says(await start(["serve"], wrong, str(tmp_path))) == (code, said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
async def test_it_is_told_to_stop_and_killed_by_its_id(
    tmp_path: Path, number: int, code: int
) -> None:
    process = await start(["serve"], variables(tmp_path), str(tmp_path))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while STARTED not in (await process.stdout.readline()).decode():
            assert process.returncode is None
    assert psutil.Process(process.pid).cwd() == str(tmp_path)
    process.send_signal(number)
    assert (await what_it_says(process))[0] == code
    with pytest.raises(ProcessLookupError):
        process.kill()


def test_where_the_interpreter_itself_is_to_be_another_nothing_is_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert can_start(variables(tmp_path))
    assert not can_start(variables(tmp_path, LD_PRELOAD="a.so"))
    monkeypatch.setenv("CI", "1")
    assert not can_start(variables(tmp_path))
