"""SIGTERM and SIGINT: the first one asks a process to stop, the second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
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


def _on_signal(stop: asyncio.Event, logs: LogStream, then: Callable[[], None] | None) -> None:
    if stop.is_set():
        if then:
            then()
        logs.close()
        os._exit(_SECOND_SIGNAL_EXIT)
    stop.set()
