"""Processes of the service that are forked from one that has loaded its modules.

Such a start takes a tenth of the processor time. What the interpreter reads only at its own start,
such as PYTHON… and LD_… variables, is that of the loaded process. CI starts each process by itself.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = (
    "inngest_outbox.processes.main",
    "inngest_outbox.processes.serve",
    "inngest_outbox.inngest.address",
    "inngest_outbox.outbox.postgres.store",
    "inngest",
    "httpcore",
)
AT_START = ("PYTHON", "LD_", "COVERAGE_")
_MOST_BYTES = 200_000  # of a message


class PreloadedProcess:
    """What tests use of an `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, status: socket.socket) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._status = status
        self._ending = asyncio.create_task(self._end())

    async def wait(self) -> int:
        return await asyncio.shield(self._ending)

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def _end(self) -> int:
        with self._status:
            said = await asyncio.get_running_loop().sock_recv(self._status, 100)
        self.returncode = int(said)
        return self.returncode


async def start(
    command: Sequence[str], environment: Mapping[str, str], folder: str
) -> PreloadedProcess:
    """`python -m inngest_outbox <command>` in that folder, with its output in `stdout`."""
    loop = asyncio.get_running_loop()
    status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    wanted = json.dumps([list(command), dict(environment), folder]).encode()
    socket.send_fds(_loaded(), [wanted], [write, theirs.fileno()])
    os.close(write)
    theirs.close()
    status.settimeout(0)
    pid = int(await loop.sock_recv(status, 100))
    stdout = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(stdout)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(read, "rb", buffering=0))
    return PreloadedProcess(pid, stdout, status)


def can_start(environment: Mapping[str, str]) -> bool:
    """Whether a process with these variables may be forked."""
    return not os.environ.get("CI") and _of_start(environment) == _of_start(_environment())


@functools.cache
def _loaded() -> socket.socket:
    """Where to ask the loaded process of this one; it ends when this one does."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(there.fileno())],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
        )
    atexit.register(_stop, here, process)
    return here


def _stop(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/service"}


def _of_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


class _Forks:
    """The loaded process: forks a process for each message, and says when it has ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._woken, self._wake = socket.socketpair()
        self._statuses: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Fork until nobody asks any more; in a forked process, be the service."""
        for name in MODULES:
            import_module(name)
        gc.freeze()
        self._wake.settimeout(0)
        signal.set_wakeup_fd(self._wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._control, self._woken], [], [])
            if self._woken in ready:
                self._woken.recv(4096)
                self._tell_ended()
            if self._control in ready:
                wanted, handles, *_ = socket.recv_fds(self._control, _MOST_BYTES, 2)
                if not wanted:
                    return
                self._fork(*json.loads(wanted), *handles)

    def _fork(
        self, command: list[str], environment: dict[str, str], folder: str, output: int, told: int
    ) -> None:
        status = socket.socket(fileno=told)
        pid = os.fork()
        if pid:
            os.close(output)
            status.send(str(pid).encode())
            self._statuses[pid] = status
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (self._control, self._woken, self._wake, status, *self._statuses.values()):
            one.close()
        for handle in (1, 2):
            os.dup2(output, handle)
        os.close(output)
        sys.stdout = os.fdopen(1, "w", closefd=False)  # another kind of file than the one before
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        random.seed()
        sys.path[0] = folder
        sys.argv[1:] = command
        sys.orig_argv[:] = [sys.executable, "-m", "inngest_outbox", *command]
        runpy.run_module("inngest_outbox", run_name="__main__", alter_sys=True)
        sys.exit()

    def _tell_ended(self) -> None:
        while self._statuses:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._statuses.pop(pid) as told:
                told.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    _Forks(socket.socket(fileno=int(sys.argv[1]))).run()
