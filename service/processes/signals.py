"""SIGTERM and SIGINT: the first one asks a process to stop, the second one ends it at once.

SIGHUP asks for the new version of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from service.observe.log_stream import LogStream

_SECOND_SIGNAL_EXIT = 130

T = TypeVar("T")


def stop_on_signals(logs: LogStream, then: Callable[[], None] | None = None) -> asyncio.Event:
    """An event that the first signal sets. A second one ends the process, after `then`."""
    stop = asyncio.Event()

    def heard() -> None:
        if stop.is_set():
            if then:
                then()
            _end(_SECOND_SIGNAL_EXIT, logs)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, heard)
    return stop


@contextlib.asynccontextmanager
async def ends_at_a_stop(
    opening: AbstractAsyncContextManager[T], stop: asyncio.Event, logs: LogStream
) -> AsyncIterator[T]:
    """The context `opening`. A stop while it is entered ends the process at once, with 0.

    A migration under way heeds nothing else. It is undone, as after a kill.
    """

    async def end() -> None:
        await stop.wait()
        _end(0, logs)

    ending = asyncio.create_task(end(), name="end-at-a-stop")
    try:
        async with opening as opened:
            ending.cancel()
            yield opened
    finally:
        ending.cancel()


def on_hangup(upgrade: Callable[[], object]) -> None:
    """Call `upgrade` on SIGHUP. At a terminal, which sends it as it closes, the process ends."""
    if not (sys.stdin and sys.stdin.isatty()):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, upgrade)


def _end(code: int, logs: LogStream) -> None:
    logs.close()
    os._exit(code)
