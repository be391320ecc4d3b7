"""The lock of a process that was killed: a start waits for no more than the kernel's work."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from service.errors import OutboxBusyError
from service.outbox.sqlite.file.lock import LockTimings, sole_writer

NEVER_GIVES_UP = LockTimings(dead_holder_seconds=10**6)
HOLD = """
import os, sys
from pathlib import Path
from service.outbox.sqlite.file.lock import sole_writer
memory = bytearray(200_000_000)  # the kernel clears it away before the lock goes
with sole_writer(Path(sys.argv[1]), socket="/nowhere"):
    print("held", flush=True)
    sys.stdin.read()
"""
LEAVE_A_CHILD = """
import os, sys
from pathlib import Path
from service.outbox.sqlite.file.lock import sole_writer
with sole_writer(Path(sys.argv[1]), socket="/nowhere"):
    if os.fork():
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(path: Path, program: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.stdin.close()


def refusal(path: Path) -> str:
    """What a start says, which must not wait for anything."""
    said: list[str] = []

    def start() -> None:
        try:
            with sole_writer(path, socket="/nowhere", timings=NEVER_GIVES_UP):
                said.append("it started")
        except OutboxBusyError as error:
            said.append(str(error))

    thread = Thread(target=start, daemon=True)
    thread.start()
    thread.join(60)
    assert said, "it waits"
    return said[0]


@pytest.mark.parametrize("_", range(5))
def test_a_start_just_after_a_sigkill_gets_the_lock(tmp_path: Path, _: int) -> None:
    path = tmp_path / "outbox.db"
    with holding(path) as holder:
        holder.kill()
        with sole_writer(path, socket="/nowhere", timings=NEVER_GIVES_UP):
            pass


def test_a_start_beside_a_living_process_says_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with holding(path) as holder:
        assert f"(pid {holder.pid}) serves" in refusal(path)
        os.kill(holder.pid, signal.SIGSTOP)
        try:
            assert f"(pid {holder.pid}) serves" in refusal(path)
        finally:
            os.kill(holder.pid, signal.SIGCONT)


def test_a_start_whose_file_is_held_after_the_death_of_its_process_says_so_at_once(
    tmp_path: Path,
) -> None:
    """A child that it left still has the lock."""
    path = tmp_path / "outbox.db"
    with holding(path, LEAVE_A_CHILD) as gone:
        assert gone.wait(10) == 0
        assert f"(pid {gone.pid}) serves" in refusal(path)
