"""The file descriptors of the process; their shortage is logged and counted.

Without one new connections wait, and nothing else reports it. So the process tries to open a file
twice a second.
"""

from __future__ import annotations

import asyncio
import errno
import os

import structlog

from inngest_outbox.observe.recorder import Recorder

_EVERY_SECONDS = 0.5
_SHORTAGES = (errno.EMFILE, errno.ENFILE)

log = structlog.get_logger(__name__)


def is_out_of_descriptors() -> bool:
    """True when no file can be opened now: the process or the machine has too many open."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _SHORTAGES
    return False


class DescriptorShortage:
    """Counts each want of a descriptor; logs its begin and its end."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lasts = False

    async def watch(self) -> None:
        """Look twice a second until cancelled, for connections that wait."""
        while True:
            if is_out_of_descriptors():
                self._note("accept")
            elif self._lasts:
                self._lasts = False
                log.warning("file_descriptors_are_back")
            await asyncio.sleep(_EVERY_SECONDS)

    def send_failed(self, error: Exception) -> None:
        """Note a failed request to Inngest if a shortage was its cause."""
        if getattr(error, "errno", None) in _SHORTAGES or is_out_of_descriptors():
            self._note("send")

    def _note(self, purpose: str) -> None:
        self._recorder.count("no_file_descriptors", purpose=purpose)
        if not self._lasts:
            self._lasts = True
            log.error("no_file_descriptors", purpose=purpose)
