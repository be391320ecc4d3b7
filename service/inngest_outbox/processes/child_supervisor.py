"""The child supervisor: keeps one child running until it is stopped.

A child that was ready comes again at once; one that does not become ready comes ever later.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from inngest_outbox.processes.child_process import READY, WAITS, Child, ChildProcess, comes_first
from inngest_outbox.processes.startup import FAULTY

LOAD_SECONDS = 60.0
OPEN_SECONDS = 600.0  # a migration of many rows takes its time
_TAKE_OVER = "--take-over"
_FIRST_RESTART_SECONDS = 0.1
_LAST_RESTART_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SupervisorPolicy:
    """The children's environment.

    `say` gets sentences, `ended` the id of each process that has ended.
    """

    environment: Mapping[str, str]
    say: Callable[[str], None]
    ended: Callable[[int], None]


class ChildSupervisor:
    """Runs one child, one process at a time.

    `fault` is why the last process ended, where that was not before a `hand_over`.
    """

    def __init__(self, child: Child, policy: SupervisorPolicy) -> None:
        self._child = child
        self._policy = policy
        self._stopping = asyncio.Event()
        self._any_end = asyncio.Event()
        self._said = {WAITS: asyncio.Event(), READY: asyncio.Event()}
        self._was_ready = False
        self._takes_back = False
        self._process: ChildProcess | None = None
        self.fault = ""
        self._running: asyncio.Task[int] | None = None

    @property
    def name(self) -> str:
        """The child's name, for sentences."""
        return self._child.name

    def start(
        self,
        *,
        take_over: bool = False,
        faulty: Callable[[], None] | None = None,
        once: Sequence[str] = (),
    ) -> None:
        """Begin. `faulty` is called when the first process exits with 2; then this has ended.

        With `take_over` the first process loads, says that it waits, and continues after `go`. When
        it does not become ready, this has ended. `once` are options of the first process alone.
        """
        options = (*once, _TAKE_OVER) if take_over else once
        running = self._run(options, faulty, take_over=take_over)
        self._running = asyncio.create_task(running, name=self.name)

    async def waits(self) -> None:
        """Wait until a process says that it waits."""
        await self._said[WAITS].wait()

    async def ready(self) -> None:
        """Wait until a process says that it does its work."""
        await self._said[READY].wait()

    async def comes(self, saying: Callable[[], Awaitable[None]], seconds: float) -> bool:
        """True when `saying` (`waits` or `ready`) comes in time, before any process has ended."""
        return await comes_first(saying(), self._any_end.wait(), within_seconds=seconds)

    def go(self) -> None:
        """Let the process continue that waits."""
        if self._process:
            self._process.go()

    def hand_over(self) -> None:
        """Ask the process to let go of what it holds; then it says that it waits."""
        self._takes_back = False
        self._any_end.clear()
        self.fault = ""
        for event in self._said.values():
            event.clear()
        if self._process:
            self._process.hand_over()

    def take_back(self) -> None:
        """After `hand_over`: the process continues as soon as it waits."""
        self._takes_back = True
        if self._said[WAITS].is_set():
            self.go()

    def retire(self) -> None:
        """Ask the process to let go of what it holds and to end; start no other one."""
        self._stopping.set()
        if self._process:
            self._process.hand_over()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the process a signal, and start no other one. May come twice."""
        self._stopping.set()
        if self._process:
            self._process.signal(number)

    async def ended(self) -> int:
        """Wait until no process is left: 0, or 2 after a faulty first start."""
        return await asyncio.shield(self._running) if self._running else 0

    async def _run(
        self, options: Sequence[str], faulty: Callable[[], None] | None, *, take_over: bool
    ) -> int:
        child = replace(self._child, command=(*self._child.command, *options))
        delay = _FIRST_RESTART_SECONDS
        while not self._stopping.is_set():
            code = await self._run_once(child)
            if self._stopping.is_set() or (take_over and not self._was_ready):
                break
            if faulty and code == FAULTY and not self._was_ready:
                faulty()
                return FAULTY
            child, faulty, take_over = self._child, None, False
            if self._was_ready:
                delay = _FIRST_RESTART_SECONDS
            ended = isinstance(code, int)
            how = f"ended with {code}" if ended else f"could not be started ({code})"
            self._policy.say(f"{self.name} {how}: starting it again.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(delay * 2, _LAST_RESTART_SECONDS)
        return 0

    async def _run_once(self, child: Child) -> int | OSError:
        """The exit status, or why the process could not be started."""
        self._was_ready = False
        try:
            process = await ChildProcess.start(child, self._policy.environment, self._note)
        except OSError as error:  # no memory or descriptor for a moment, or no such program
            self.fault = f"It could not be started: {error}."
            self._any_end.set()
            return error
        self._process = process
        if self._stopping.is_set():
            process.signal(signal.SIGTERM)
        code = await process.ended()
        self.fault = process.fault or f"It ended with {code}; see its log."
        self._policy.ended(process.pid)
        self._any_end.set()
        return code

    def _note(self, word: bytes) -> None:
        self._was_ready |= word == READY
        if event := self._said.get(word):
            event.set()
        if word == WAITS and self._takes_back:
            self.go()
