"""One process that becomes the new version of its program, with the listening sockets open.

The invariant: the program of the process is replaced only after the new version has loaded, with
this configuration, and has migrated and opened this outbox, in a process of its own. Otherwise this
version opens the outbox again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from service.bootstrap.stores import open_outbox
from service.config.settings import Settings
from service.errors import OutboxUnavailableError
from service.observe.log_stream import LogStream
from service.outbox.schema import pending
from service.processes.child_process import Child, comes_first, lifeline
from service.processes.keeper import LOAD_SECONDS, OPEN_SECONDS, Keeper, KeeperPolicy
from service.processes.listening import Listening
from service.processes.passed_sockets import pass_to_next_program
from service.processes.signals import ignore_hangup, stop_on_signals
from service.processes.upgrades import STOPPED, Outcome


class Successor:
    """The new version on its way. `stop` is set when the service is to stop."""

    def __init__(self, stop: asyncio.Event, say: Callable[[str], None]) -> None:
        self._stop = stop
        self._policy = KeeperPolicy(dict(os.environ), say, ended=lambda _: None)
        self._is_wanted = asyncio.Event()
        self._may_open = asyncio.Event()
        self._is_decided = asyncio.Event()
        self._outcome = Outcome()

    async def comes(self) -> bool:
        """Wait until the new version wants the outbox; false when the service is to stop."""
        await comes_first(self._is_wanted.wait(), self._stop.wait())
        return not self._stop.is_set()

    async def takes_over(self) -> bool:
        """Let the new version open the outbox, which this one has closed; whether it could.

        False when the service is to stop.
        """
        self._may_open.set()
        await comes_first(self._is_decided.wait(), self._stop.wait())
        return self._outcome.restarts and not self._stop.is_set()

    async def replace(self) -> Outcome:
        """Load and try the new version; its outcome restarts this process, or is a failure."""
        self._is_decided.clear()
        new = Keeper(Child("New version", _command(), ()), self._policy)
        new.start(take_over=True)
        try:
            failure = await self._failure_of(new)
        finally:
            new.stop(signal.SIGKILL)
            await new.ended()
        decided = Outcome(failure, restarts=failure is None)
        self._outcome = STOPPED if self._stop.is_set() else decided
        # A version that could not take over wants the outbox no more.
        self._is_wanted.clear()
        self._may_open.clear()
        self._is_decided.set()
        return self._outcome

    async def _failure_of(self, new: Keeper) -> str | None:
        """Why the new version does not take over; None also where the service is to stop."""
        if not await new.comes(new.waits, LOAD_SECONDS):
            return f"The new version did not load: {new.fault}"
        self._is_wanted.set()
        if not await comes_first(self._may_open.wait(), self._stop.wait()):
            return None
        new.go()
        opening = asyncio.create_task(new.comes(new.ready, OPEN_SECONDS), name="new-version")
        if not await comes_first(opening, self._stop.wait()):
            return None
        opened = opening.result()
        return None if opened else f"The new version did not open the outbox: {new.fault}"


async def try_new_version(settings: Settings, logs: LogStream, lifeline_fd: int) -> None:
    """In the new version: load, then migrate and open the outbox when the old one has closed it.

    Raises what `open_outbox` raises, and OutboxUnavailableError when no event can be stored.
    """
    stop = stop_on_signals(logs)
    with contextlib.suppress(OutboxUnavailableError):
        pending(settings.store_url)  # an outbox that a still newer version has made is a fault
    async with lifeline(lifeline_fd, stop.set) as line:
        if await line.may_go(stop):
            async with open_outbox(settings) as outbox:
                if outbox.failure:
                    raise OutboxUnavailableError(outbox.failure)
            line.ready()
            await stop.wait()
    logs.close()


def become_new_version(listening: Listening) -> NoReturn:
    """Replace the program of this process, which hands its sockets to the new one."""
    ignore_hangup()
    pass_to_next_program(listening.passed, os.environ)
    command = _command()
    os.execv(command[0], command)  # noqa: S606  (the command of this process)


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
