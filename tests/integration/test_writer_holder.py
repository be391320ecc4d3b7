"""Whether the process that holds an outbox is about to be gone, from what the kernel says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.outbox.sqlite.file import lock as holder
from service.outbox.sqlite.file.lock import is_ending

PID = 4711
NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"\\xff\\xfe) Z", 0, 0, 0)
print("named", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /proc."""
    monkeypatch.setattr(holder, "Path", lambda name: tmp_path / name.removeprefix("/proc/"))
    (tmp_path / str(PID)).mkdir()
    return tmp_path / str(PID)


def says(proc: Path, *, state: str = "S", flags: int = 0, own: int = 0, shared: int = 0) -> None:
    """What the kernel says of the process; signals are masks."""
    (proc / "stat").write_text(f"{PID} (a ) Z b) {state} 1 2 3 4 5 {flags} 4 4 0 0")
    (proc / "status").write_text(
        f"Name:\ta\nState:\t{state}\nSigQ:\t0/1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n"
        f"SigBlk:\t{1 << 8:016x}\n"
    )


@pytest.mark.parametrize("state", ["R", "S", "D", "T"])
def test_a_process_that_runs_sleeps_or_is_stopped_stays(proc: Path, state: str) -> None:
    says(proc, state=state, flags=0x400140)
    assert is_ending(PID) is False


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_process_that_has_ended_is_about_to_be_gone(proc: Path, state: str) -> None:
    says(proc, state=state)
    assert is_ending(PID) is True


@pytest.mark.parametrize(("flags", "found"), [(0x4, True), (0x400144, True), (0x3, False)])
def test_a_process_that_exits_is_told_by_its_flag(proc: Path, flags: int, *, found: bool) -> None:
    says(proc, flags=flags)
    assert is_ending(PID) is found


KILL, TERM = 1 << 8, 1 << 14


@pytest.mark.parametrize(
    ("own", "shared", "found"),
    [
        (KILL, 0, True),
        (0, KILL, True),
        (0, 0x556, True),
        (TERM, TERM, False),
        (1 << 9, 1 << 7, False),
    ],
)
def test_a_kill_that_waits_is_told_from_other_signals(
    proc: Path, own: int, shared: int, *, found: bool
) -> None:
    says(proc, own=own, shared=shared)
    assert is_ending(PID) is found


@pytest.mark.parametrize("pid", [None, "1", {}])
def test_what_is_no_number_names_no_process(pid: object) -> None:
    assert is_ending(pid) is False


def test_this_process_stays_and_one_that_is_gone_is_not_about_to_be() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    assert is_ending(os.getpid()) is False
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(gone.pid) is True
    gone.wait()
    assert is_ending(gone.pid) is False


def test_a_process_whose_name_is_no_text_is_looked_at_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as named:
        assert named.stdout is not None
        assert named.stdout.readline() == b"named\n"
        assert is_ending(named.pid) is False
