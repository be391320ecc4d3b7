"""A child process with a lifeline: a socket pair on which both sides tell their state.

The child says that it waits, that it is ready, or why it can't start. The parent lets it continue,
or asks it to hand over. When the parent is killed the line ends, and the child stops as it
does on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

WAITS = b"w"
READY = b"r"
FAULT = b"f"
_GO = b"g"
_HAND_OVER = b"h"
_MAX_FAULT_BYTES = 4096
_LAST_WORDS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Child:
    """A process to run. `handles` are the descriptors that it inherits."""

    name: str
    command: Sequence[str]
    handles: Sequence[int]


async def comes_first(
    wanted: Awaitable[object], other: Awaitable[object], *, within_seconds: float | None = None
) -> bool:
    """Wait for one of two; true when `wanted` has come. None waits without a limit."""
    both = [asyncio.ensure_future(wanted), asyncio.ensure_future(other)]
    done, pending = await asyncio.wait(
        both, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    for late in pending:
        late.cancel()
    return both[0] in done


@dataclass(frozen=True, slots=True)
class Handles:
    """The descriptors that a child inherits: its listening sockets, and its line to the parent."""

    listening: Sequence[int]
    lifeline: int

    def sockets(self) -> list[socket.socket]:
        """The listening sockets."""
        return [socket.socket(fileno=one) for one in self.listening]


class ChildProcess:
    """One run of a child, as its parent sees it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        line: socket.socket,
        said: Callable[[bytes], None],
    ) -> None:
        self._process = process
        self._line = line
        self.fault: str | None = None
        self._listening = asyncio.create_task(self._listen(said), name="child-line")

    @classmethod
    async def start(
        cls, child: Child, environment: Mapping[str, str], said: Callable[[bytes], None]
    ) -> Self:
        """Start it in a session of its own: Ctrl-C reaches the parent alone.

        `said` gets WAITS and READY when the child says so.
        """
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.enter_context(ours)
            handle = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                *child.command,
                f"--lifeline-fd={handle}",
                pass_fds=(*child.handles, handle),
                env=environment,
                start_new_session=True,
            )
            unless_started.pop_all()
        ours.settimeout(0)
        return cls(process, ours, said)

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    def go(self) -> None:
        """Let a child continue that waits."""
        with contextlib.suppress(OSError):
            self._line.send(_GO)

    def hand_over(self) -> None:
        """Ask the child to let go of what it holds, and then to say that it waits."""
        with contextlib.suppress(OSError):
            self._line.send(_HAND_OVER)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still there."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until the process has ended; its exit status. Then `fault` says what it said."""
        code = await self._process.wait()
        await asyncio.wait([self._listening], timeout=_LAST_WORDS_SECONDS)
        self._listening.cancel()
        self._line.close()
        return code

    async def _listen(self, said: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while word := await loop.sock_recv(self._line, 1):
                if word == FAULT:
                    fault = await loop.sock_recv(self._line, _MAX_FAULT_BYTES)
                    self.fault = fault.decode(errors="ignore")  # may be cut within a character
                else:
                    said(word)


def tell_fault(handle: int, fault: str) -> None:
    """In a child: tell the parent why it can't start; nothing where the handle is -1."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(handle)) as line:
        line.sendall(FAULT + fault.encode()[:_MAX_FAULT_BYTES])


class Lifeline:
    """The child's end of the line. Made by `lifeline`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._may_go = asyncio.Event()
        self._handing_over = asyncio.Event()

    async def may_go(self, stop: asyncio.Event) -> bool:
        """Say that this process waits, then wait for the parent; false when `stop` comes first."""
        self._may_go.clear()
        self._handing_over.clear()
        self._say(WAITS)
        await comes_first(self._may_go.wait(), stop.wait())
        return not stop.is_set()

    async def hand_over(self, stop: asyncio.Event) -> None:
        """Wait until the parent asks for what this process holds, or until `stop`."""
        await comes_first(self._handing_over.wait(), stop.wait())

    def ready(self) -> None:
        """Say that this process does its work."""
        self._say(READY)

    async def listen(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the parent is gone."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while word := await loop.sock_recv(self._line, 1):
                (self._may_go if word == _GO else self._handing_over).set()
        gone()

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._line.send(word)


@contextlib.asynccontextmanager
async def lifeline(handle: int, gone: Callable[[], None]) -> AsyncIterator[Lifeline]:
    """In a child: its lifeline; `gone` is called when the parent is gone."""
    # A copy: `tell_fault` uses the descriptor after the context.
    with socket.socket(fileno=os.dup(handle)) as line:
        line.settimeout(0)
        opened = Lifeline(line)
        listening = asyncio.create_task(opened.listen(gone), name="lifeline")
        try:
            yield opened
        finally:
            listening.cancel()
