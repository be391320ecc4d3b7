"""`WEB_CONCURRENCY=N`: one store process and N front processes that accept on one socket.

The parent only binds the sockets, starts the children, restarts one that dies and passes the stop
on. The sockets are inherited, so that no connection waits in the queue of a process that is gone. A
socket pair is the lifeline: a child says one byte when it is ready, and when the parent is killed
the line ends and the child stops as it does on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_FIRST_RESTART_SECONDS = 0.1
_LAST_RESTART_SECONDS = 5.0
_HEALTHY_SECONDS = 10.0
_FAULTY = 2


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running. `handles` are the descriptors that it inherits."""

    name: str
    command: Sequence[str]
    handles: Sequence[int]


class ProcessPool:
    """Keeps a store process and its front processes running until `stop`.

    Each command also gets `--lifeline-fd N`. `say` is told when a child is restarted, `ended` the
    id of each process that has ended.
    """

    def __init__(
        self,
        store: Child,
        fronts: Sequence[Child],
        environment: Mapping[str, str],
        *,
        say: Callable[[str], None],
        ended: Callable[[int], None],
    ) -> None:
        self._store = store
        self._fronts = fronts
        self._environment = environment
        self._say = say
        self._ended = ended
        self._stopping = asyncio.Event()
        self._ours, self._theirs = socket.socketpair()
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> int:
        """Until stopped: 0, or 2 when a child's first start was faulty, which stops the others."""
        store = asyncio.create_task(self._keep(self._store), name="keep-store")
        try:
            codes = await asyncio.gather(*(self._keep(front) for front in self._fronts))
            # The fronts' last requests need the store until here.
            self._signal(self._store, signal.SIGTERM)
            return max(await store, *codes)
        finally:
            store.cancel()
            self._ours.close()
            self._theirs.close()

    async def ready(self) -> None:
        """Wait until every child has said that it is ready."""
        self._ours.setblocking(False)
        wanted = said = 1 + len(self._fronts)
        while said > 0:
            said -= len(await asyncio.get_running_loop().sock_recv(self._ours, wanted))

    def stop(self) -> None:
        """Stop the fronts, then the store; `run` returns when all have ended. May come twice."""
        self._stopping.set()
        for front in self._fronts:
            self._signal(front, signal.SIGTERM)

    def kill(self) -> None:
        """End the children at once."""
        self._stopping.set()
        for child in (self._store, *self._fronts):
            self._signal(child, signal.SIGKILL)

    def _signal(self, child: Child, number: signal.Signals) -> None:
        if process := self._running.get(child.name):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, child: Child) -> int:
        delay = _FIRST_RESTART_SECONDS
        first = True
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(child)
            if self._stopping.is_set():
                break
            if first and code == _FAULTY:
                self.stop()
                return _FAULTY
            first = False
            if time.monotonic() - began > _HEALTHY_SECONDS:
                delay = _FIRST_RESTART_SECONDS
            self._say(f"{child.name} ended with {code}: starting it again.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(delay * 2, _LAST_RESTART_SECONDS)
        return 0

    async def _run_once(self, child: Child) -> int:
        """A session of its own: Ctrl-C reaches the parent alone, which passes it on once."""
        lifeline_fd = self._theirs.fileno()
        process = await asyncio.create_subprocess_exec(
            *child.command,
            f"--lifeline-fd={lifeline_fd}",
            pass_fds=(*child.handles, lifeline_fd),
            env=self._environment,
            start_new_session=True,
        )
        self._running[child.name] = process
        try:
            if self._stopping.is_set() and child is not self._store:
                process.terminate()
            return await process.wait()
        finally:
            self._running.pop(child.name, None)
            self._ended(process.pid)


@contextlib.contextmanager
def lifeline(lifeline_fd: int, stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """In a child: `stop` is called when the parent is gone; call what is yielded when ready."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(lifeline_fd)
        stop()

    def ready() -> None:
        with contextlib.suppress(OSError):
            os.write(lifeline_fd, b".")

    loop.add_reader(lifeline_fd, gone)
    try:
        yield ready
    finally:
        loop.remove_reader(lifeline_fd)
