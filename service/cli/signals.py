"""SIGTERM and SIGINT: the first one asks a process to stop, the second one ends it at once.

SIGHUP asks for the new version of the program.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from service.observe.log_stream import LogStream

_SECOND_SIGNAL_EXIT = 130


def stop_on_signals(logs: LogStream, then: Callable[[], None] | None = None) -> asyncio.Event:
    """An event that the first signal sets. A second one ends the process, after `then`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, logs, then)
    return stop


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
