"""The start of every command, its signals, and its end on a fault: a sentence, no traceback.

The first SIGTERM or SIGINT asks a process to stop, the second one ends it at once. SIGHUP, which a
terminal sends as it closes, asks it to stop, too. `serve` without a terminal is asked by it for the
new version of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TypeVar

from inngest_outbox.app_settings.app_settings import load_defaults
from inngest_outbox.config.env_file import read_env_file
from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import ConfigurationError, DatabaseAwayError, ServiceError
from inngest_outbox.event_types.types_file import check_encryption, load_event_types
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.observe.printable import printable

FAULTY = 2  # the exit code of a start that can't succeed by repetition
_MAX_HANDLES = 65_536
_SECOND_SIGNAL_EXIT = 130

T = TypeVar("T")


def stop_on_signals(logs: LogStream, then: Callable[[], None] | None = None) -> asyncio.Event:
    """An event that the first signal sets. A second one ends the process, after `then`.

    SIGHUP never ends it: a terminal that closes may send it twice. `nohup` has it ignored.
    """
    stop = asyncio.Event()

    def heard() -> None:
        if stop.is_set():
            if then:
                then()
            _end(_SECOND_SIGNAL_EXIT, logs)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, heard)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop.set)
    return stop


@contextlib.asynccontextmanager
async def ends_at_a_stop(
    opening: AbstractAsyncContextManager[T], stop: asyncio.Event, logs: LogStream
) -> AsyncIterator[T]:
    """The context `opening`. A stop while it is entered ends the process at once, with 0.

    Nothing else stops a migration under way. It is undone, as after a kill.
    """

    async def end() -> None:
        await stop.wait()
        _end(0, logs)

    ending = asyncio.create_task(end(), name="end-at-a-stop")
    async with opening as opened:
        ending.cancel()
        yield opened


def on_hangup(upgrade: Callable[[], object]) -> None:
    """Call `upgrade` on SIGHUP, but at a terminal, which sends it as it closes."""
    if not sys.stdin.isatty():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, upgrade)


def _end(code: int, logs: LogStream) -> None:
    logs.close()
    os._exit(code)


def load_settings() -> Settings:
    """The settings. `.env` goes into the environment, where boto and the Inngest SDK see it too.

    Raises ConfigurationError with every fault, those of the files that variables name too.
    """
    read_env_file()
    faults = [
        *_faults(lambda: load_defaults(_file("APP_SETTINGS_FILE"))),
        *_faults(lambda: load_event_types(_file("EVENT_TYPES_FILE"))),
    ]
    try:
        settings = Settings.load(os.environ)
    except ConfigurationError as error:
        raise ConfigurationError([*error.faults, *faults]) from None
    if faults:
        raise ConfigurationError(faults)
    types = load_event_types(settings.event_types_file)
    check_encryption(types, has_key=bool(settings.encryption_keys))
    return settings


def _faults(load: Callable[[], object]) -> Sequence[str]:
    try:
        load()
    except ConfigurationError as error:
        return error.faults
    return ()


def _file(variable: str) -> str | None:
    return os.environ.get(variable, "").strip() or None


@contextmanager
def exit_on_fault(told: Callable[[str], None] | None = None) -> Iterator[None]:
    """Exit with 2 on a faulty configuration or a service error.

    With 1 on a system error and while the database is away: a later start may succeed.
    `told` gets the sentences, too. Without it, a pipe without a reader is not an error.
    """
    try:
        yield
    except ConfigurationError as error:
        code, sentences = FAULTY, [f"configuration: {fault}" for fault in error.faults]
    except ServiceError as error:
        code = 1 if isinstance(error, DatabaseAwayError) else FAULTY
        sentences = [str(error)]
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not told:
            raise
        code, sentences = 1, [f"can't start: {error}"]
    else:
        return
    shown = [printable(sentence) for sentence in sentences]
    for sentence in shown:
        print(sentence, file=sys.stderr)
    if told:
        told("; ".join(shown))
    sys.exit(code)


def allow_many_connections() -> None:
    """Slow clients hold a file handle each, and the usual soft limit is 1,024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _MAX_HANDLES)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def quiet_garbage_collector() -> None:
    """Leave what lives as long as the process out of every later collection."""
    gc.collect()
    gc.freeze()
