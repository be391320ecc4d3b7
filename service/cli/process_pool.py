"""`WEB_CONCURRENCY=N`: N service processes that accept on one listening socket.

The parent only binds the socket, starts the workers, restarts one that dies and passes the stop on;
the socket is inherited, so that no connection waits in the queue of a worker that is gone. A second
inherited socket is the lifeline: a worker says one byte when it accepts, and when the parent is
killed the line ends and the worker stops as it does on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

_FIRST_RESTART_SECONDS = 0.1
_LAST_RESTART_SECONDS = 5.0
_HEALTHY_SECONDS = 10.0
_FAULTY = 2


class Workers:
    """Keeps `count` processes of `command` running until `stop`.

    The command gets `--listen-fd N --lifeline-fd N`. `say` is told when a worker is restarted.
    """

    def __init__(
        self,
        command: Sequence[str],
        listening: socket.socket,
        *,
        count: int,
        say: Callable[[str], None],
    ) -> None:
        self._command = command
        self._listening = listening
        self._count = count
        self._say = say
        self._stopping = asyncio.Event()
        self._ours, self._theirs = socket.socketpair()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self.restarts = 0

    async def run(self) -> int:
        """Until stopped: 0, or 2 when a worker's first start was faulty, which stops the others."""
        try:
            codes = await asyncio.gather(*(self._keep(number) for number in range(self._count)))
        finally:
            self._ours.close()
            self._theirs.close()
        return max(codes)

    async def accept(self) -> None:
        """Wait until so many workers have begun to accept."""
        self._ours.setblocking(False)
        said = 0
        while said < self._count:
            said += len(await asyncio.get_running_loop().sock_recv(self._ours, self._count))

    def stop(self) -> None:
        """Pass SIGTERM on; `run` returns when every worker has ended. May come twice."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the workers at once."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    @property
    def pids(self) -> list[int]:
        """The workers that run."""
        return [process.pid for process in self._running.values()]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, number: int) -> int:
        delay = _FIRST_RESTART_SECONDS
        first = True
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(number)
            if self._stopping.is_set():
                break
            if first and code == _FAULTY:
                self.stop()
                return _FAULTY
            first = False
            if time.monotonic() - began > _HEALTHY_SECONDS:
                delay = _FIRST_RESTART_SECONDS
            self.restarts += 1
            self._say(f"Worker {number + 1} ended with {code}: starting it again.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(delay * 2, _LAST_RESTART_SECONDS)
        return 0

    async def _run_once(self, number: int) -> int:
        """A session of its own: Ctrl-C reaches the parent alone, which passes it on once."""
        handles = (self._listening.fileno(), self._theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            *self._command,
            f"--listen-fd={handles[0]}",
            f"--lifeline-fd={handles[1]}",
            pass_fds=handles,
            start_new_session=True,
        )
        self._running[number] = process
        try:
            if self._stopping.is_set():
                process.terminate()
            return await process.wait()
        finally:
            self._running.pop(number, None)


@contextlib.contextmanager
def lifeline(lifeline_fd: int, stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """In a worker: `stop` is called when the parent is gone; call what is yielded to say hello."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(lifeline_fd)
        stop()

    def hello() -> None:
        with contextlib.suppress(OSError):
            os.write(lifeline_fd, b".")

    loop.add_reader(lifeline_fd, gone)
    try:
        yield hello
    finally:
        loop.remove_reader(lifeline_fd)
