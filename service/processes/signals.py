"""SIGTERM and SIGINT: the first one asks a process to stop, the second one ends it at once.

SIGHUP asks for the new version of the program. The invariant: no stop is lost, also where the
program of the process is replaced.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from service.observe.log_stream import LogStream

_STOPS = (signal.SIGTERM, signal.SIGINT)
_SECOND_SIGNAL_EXIT = 130
_TURNS = 10  # the loop reads a signal in one turn and calls its handler in a later one


def stop_on_signals(logs: LogStream, then: Callable[[], None] | None = None) -> asyncio.Event:
    """An event that the first signal sets, also one that the program before has left to this one.

    A second one ends the process, after `then`.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        loop.add_signal_handler(number, _on_signal, stop, logs, then)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    return stop


async def may_continue(stop: asyncio.Event) -> bool:
    """Whether no signal has asked to stop; from here on one waits for this process' next program.

    It waits where no other thread takes it. Another thread lets it end the process at once.
    """
    await asyncio.get_running_loop().shutdown_default_executor()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return not stop.is_set()


def reload_on_hangup(reload: Callable[[], object]) -> None:
    """Call `reload` on SIGHUP; where a terminal sends it as it closes, the process ends instead."""
    if not _is_at_terminal():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def ignore_hangup() -> None:
    """Ignore SIGHUP from here on, also in the next program of this process until it is ready."""
    if not _is_at_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _is_at_terminal() -> bool:
    """Whether SIGHUP may come from a terminal that closes."""
    return bool(sys.stdin and sys.stdin.isatty())


def _on_signal(stop: asyncio.Event, logs: LogStream, then: Callable[[], None] | None) -> None:
    if stop.is_set():
        if then:
            then()
        logs.close()
        os._exit(_SECOND_SIGNAL_EXIT)
    stop.set()
