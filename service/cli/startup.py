"""How every command starts, and how it ends on a fault: with a sentence, not a traceback."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dotenv import load_dotenv

from service.app_settings.app_settings import load_defaults
from service.config.settings import Settings
from service.errors import ConfigurationError, ServiceError
from service.event_types.types_file import load_event_types

FAULTY = 2


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
def exit_on_fault() -> Iterator[None]:
    """Exit with 2 on a faulty configuration or a service error, with 1 on a system error."""
    try:
        yield
    except ConfigurationError as error:
        _end(FAULTY, *(f"configuration: {fault}" for fault in error.faults))
    except ServiceError as error:
        _end(FAULTY, str(error))
    except OSError as error:
        _end(1, f"can't start: {error}")


def quiet_garbage_collector() -> None:
    """What lives as long as the process is not looked at again by each collection."""
    gc.collect()
    gc.freeze()


def _end(code: int, *sentences: str) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    sys.exit(code)
