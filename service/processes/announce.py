"""What a command that runs says on standard output: sentences, or JSON where logs are JSON."""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Mapping
from typing import TextIO

import msgspec

from service.config.settings import Settings
from service.observe.logs import timestamp

_encode = msgspec.json.Encoder().encode
_LABEL_WIDTH = 14


class Announcer:
    """Says sentences. `as_json` writes each as one line of JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def say(self, sentence: str, details: Mapping[str, str] | None = None) -> None:
        """Say a sentence, with `details` below it, a line each."""
        if self._as_json:
            head = {"event": "announcement", "message": sentence, "level": "info"}
            line = _encode({**head, **(details or {}), "timestamp": timestamp()}).decode()
        else:
            rows = [f"  {label:<{_LABEL_WIDTH}}{words}" for label, words in (details or {}).items()]
            line = "\n".join([sentence, *rows])
        # Where nobody reads any more the sentence is lost, as log lines are; the service goes on.
        with contextlib.suppress(OSError):
            if _has_room(sys.stdout):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()


def announcer_for(settings: Settings) -> Announcer:
    """The announcer that speaks as the logs do."""
    return Announcer(as_json=settings.log_format == "json")


def _has_room(stream: TextIO) -> bool:
    """Whether a write of some lines would not wait for a reader that is stuck."""
    try:
        descriptor = stream.fileno()
    except ValueError:  # it has none
        return True
    watched = select.poll()
    watched.register(descriptor, select.POLLOUT)
    return bool(watched.poll(0))
