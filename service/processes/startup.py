"""The start of every command, and its end on a fault: a sentence, no traceback."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from dotenv import load_dotenv

from service.app_settings.app_settings import load_defaults
from service.config.settings import Settings
from service.errors import ConfigurationError, ServiceError
from service.event_types.types_file import check_encryption, load_event_types

FAULTY = 2  # the exit code of a start that can't succeed by repetition
_MAX_HANDLES = 65_536


def load_settings() -> Settings:
    """The settings. `.env` goes into the environment, where boto and the Inngest SDK see it too.

    Raises ConfigurationError with every fault, those of the files that variables name too.
    """
    load_dotenv(".env")
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
    """Exit with 2 on a faulty configuration or a service error, with 1 on a system error.

    `told` gets the sentences, too. Without it, a pipe whose reader is gone is no error.
    """
    try:
        yield
    except ConfigurationError as error:
        code, sentences = FAULTY, [f"configuration: {fault}" for fault in error.faults]
    except ServiceError as error:
        code, sentences = FAULTY, [str(error)]
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not told:
            raise
        code, sentences = 1, [f"can't start: {error}"]
    else:
        return
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    if told:
        told("; ".join(sentences))
    sys.exit(code)


def allow_many_connections() -> None:
    """Slow clients hold a file handle each, and the usual soft limit is 1,024 of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _MAX_HANDLES)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def quiet_garbage_collector() -> None:
    """Leave what lives as long as the process out of every later collection."""
    gc.collect()
    gc.freeze()
