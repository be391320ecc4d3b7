"""The writer's lock: its bytes, its note, whom a start waits for and how long, and who is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inngest_outbox.errors import OutboxBusyError, OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file import lock as module
from inngest_outbox.outbox.sqlite.file.lock import (
    LockTimings,
    is_ending,
    lock_path,
    sole_writer,
    writer_of,
)
from tests.support.locked_bytes import LOCK, WANTED, locked
from tests.support.open_files import open_files

TIMINGS = LockTimings(dead_holder_seconds=1.0, command_seconds=3.0, unknown_holder_seconds=0.5)


class Time:
    """The module's time: it passes only while a start waits; `then` happens at a second of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []
        self.then: dict[int, Callable[[], Any]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now = round(self.now + seconds, 6)
        self.then.pop(len(self.sleeps), lambda: None)()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(module, "time", made)
    return made


def refused(path: Path, time: Time, **named: Any) -> tuple[str, float]:
    """What a start beside another writer is told, and after how many seconds."""
    time.now = 0.0
    with pytest.raises(OutboxBusyError) as caught, sole_writer(path, timings=TIMINGS, **named):
        pass
    return str(caught.value), time.now


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_writer_locks_one_byte_and_writes_who_it_is(path: Path) -> None:
    folder = path.parent / "new"
    with sole_writer(folder / "outbox.db", socket="/run/s") as lock:
        inside = folder / "outbox.db"
        assert locked(inside) == [LOCK, 1]
        assert writer_of(inside) == {"pid": os.getpid(), "socket": "/run/s"}
        assert (mode(inside), mode(lock_path(inside))) == (0o600, 0o600)
        assert lock_path(inside).stat().st_size == 512
        assert (lock.fault, lock.is_wanted) == (None, False)
    assert locked(inside) == []
    assert writer_of(inside) is None
    assert open_files(inside.parent) == []


def test_another_writer_is_refused_at_once_unless_it_may_have_to_wait(
    path: Path, time: Time
) -> None:
    with sole_writer(path, socket="/run/s"):
        said, seconds = refused(path, time, socket="/run/t")
        assert f"(pid {os.getpid()}) serves {path}" in said
        assert (seconds, time.sleeps) == (0.1, [0.05, 0.05])
        assert refused(path, time)[1] == 0.1
        lock_path(path).unlink()
        said, seconds = refused(path, time, socket="/run/t")
        assert "(pid unknown)" in said
        assert seconds == 0.5
        assert writer_of(path) is None
    with sole_writer(path):
        assert refused(path, time)[1] == 0.1
    assert open_files(path.parent) == []


def test_a_process_that_is_ending_is_waited_for(
    path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_ending", lambda pid: pid == os.getpid())
    with sole_writer(path, socket="/run/s"):
        assert refused(path, time)[1] == 1
    with sole_writer(path):
        assert refused(path, time, socket="/run/t")[1] == 1


def test_a_service_waits_for_a_command_and_says_that_it_does(path: Path, time: Time) -> None:
    stack = contextlib.ExitStack()
    command = stack.enter_context(sole_writer(path))
    wanted, wanted_bytes = [command.is_wanted], list[int]()
    time.then[1] = lambda: wanted.append(command.is_wanted)
    time.then[2] = lambda: wanted_bytes.extend(locked(path, start=WANTED, length=1))
    assert refused(path, time, socket="/run/s")[1] == 3
    assert (wanted, wanted_bytes) == ([False, True], [WANTED, 1])
    assert not command.is_wanted
    time.then[len(time.sleeps) + 2] = stack.close
    with sole_writer(path, socket="/run/s", timings=TIMINGS) as lock:
        assert locked(path, start=WANTED, length=1) == []
        assert not lock.is_wanted


def test_a_command_that_has_closed_its_note_is_about_to_let_go(path: Path, time: Time) -> None:
    stack = contextlib.ExitStack()
    command = stack.enter_context(sole_writer(path))
    time.then[12] = command._note.close
    time.then[16] = stack.close
    with sole_writer(path, socket="/run/s", timings=TIMINGS) as lock:
        assert locked(path) == [LOCK, 1]
        assert not lock.is_wanted
    assert len(time.sleeps) == 16


def test_a_start_waits_30_seconds_for_a_command_if_nothing_else_is_said(
    path: Path, time: Time
) -> None:
    with sole_writer(path), pytest.raises(OutboxBusyError), sole_writer(path, socket="/run/s"):
        pass
    assert time.now == 30


def test_a_file_that_was_replaced_during_the_wait_is_not_served(path: Path, time: Time) -> None:
    stack = contextlib.ExitStack()
    stack.enter_context(sole_writer(path))

    def replace() -> None:
        stack.close()
        path.rename(path.with_name("aside.db"))
        path.touch()

    time.then[1] = replace
    with pytest.raises(OutboxBusyError, match="was replaced just now"), sole_writer(path):
        pass
    assert open_files(path.parent) == []


def test_a_file_that_is_gone_or_another_one_is_a_fault(path: Path) -> None:
    with sole_writer(path) as lock:
        aside = path.rename(path.with_name("aside.db"))
        assert "replaced or removed" in str(lock.fault)
        path.touch()
        assert "replaced or removed" in str(lock.fault)
        aside.rename(path)
        assert lock.fault is None


def test_a_file_that_can_not_be_opened_is_told(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OutboxUnavailableError, match="Is a directory"), sole_writer(path):
        pass


@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b'"x"', b"\xff", b"x" * 1000])
def test_a_note_that_says_nothing_is_written_over(path: Path, content: bytes) -> None:
    lock_path(path).write_bytes(content)
    with sole_writer(path):
        assert json.loads(lock_path(path).read_text())["pid"] == os.getpid()
        assert lock_path(path).stat().st_size == 512


def test_a_writer_does_without_its_note(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_path(path).mkdir()
    with sole_writer(path) as lock:
        lock.keep_note()
    lock_path(path).rmdir()
    with sole_writer(path) as lock:
        lock_path(path).unlink()
        lock_path(path).mkdir()
        lock.keep_note()
    lock_path(path).rmdir()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with sole_writer(path):
        pass
    assert open_files(path.parent) == []


def test_without_locks_of_open_files_the_whole_file_is_locked(
    path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("F_OFD_SETLK", "F_OFD_GETLK"):
        monkeypatch.delattr(fcntl, name)
    with sole_writer(path) as lock:
        assert refused(path, time, socket="/run/s")[1] == 3
        assert not lock.is_wanted
    with sole_writer(path):
        pass


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
    monkeypatch.setattr(module, "Path", lambda name: tmp_path / name.removeprefix("/proc/"))
    (tmp_path / str(PID)).mkdir()
    return tmp_path / str(PID)


KILL, TERM = 1 << 8, 1 << 14  # masks of signals that wait


@pytest.mark.parametrize(
    ("state", "flags", "own", "shared", "found"),
    [
        *(pytest.param(one, 0x400140, 0, 0, False, id=f"stays {one}") for one in "RSDT"),
        *(pytest.param(one, 0, 0, 0, True, id=f"has ended {one}") for one in "ZX"),
        pytest.param("S", 0x4, 0, 0, True, id="exits"),
        pytest.param("S", 0x400144, 0, 0, True, id="exits, with other flags"),
        pytest.param("S", 0x3, 0, 0, False, id="other flags"),
        pytest.param("S", 0, KILL, 0, True, id="a kill of its own"),
        pytest.param("S", 0, 0, KILL, True, id="a kill of all threads"),
        pytest.param("S", 0, 0, 0x556, True, id="a kill among others"),
        pytest.param("S", 0, TERM, TERM, False, id="another signal"),
        pytest.param("S", 0, 1 << 9, 1 << 7, False, id="its neighbours"),
    ],
)
def test_a_process_that_has_ended_exits_or_is_killed_is_about_to_be_gone(
    proc: Path, state: str, flags: int, own: int, shared: int, *, found: bool
) -> None:
    (proc / "stat").write_text(f"{PID} (a ) Z b) {state} 1 2 3 4 5 {flags} 4 4 0 0")
    (proc / "status").write_text(
        f"Name:\ta\nState:\t{state}\nSigQ:\t0/1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n"
        f"SigBlk:\t{1 << 8:016x}\n"
    )
    assert is_ending(PID) is found


def test_this_process_stays_and_one_that_is_gone_is_not_about_to_be() -> None:
    for no_number in (None, "1", {}):
        assert is_ending(no_number) is False
    gone = subprocess.Popen(["true"])
    assert is_ending(os.getpid()) is False
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(gone.pid) is True
    gone.wait()
    assert is_ending(gone.pid) is False


def test_a_process_whose_name_is_no_text_is_looked_at_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as named:
        assert named.stdout.readline() == b"named\n"
        assert is_ending(named.pid) is False
