"""A service goes on when nobody hears what it says."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading

import pytest

from service.processes.banner import Announcer


class Gone(io.StringIO):
    """A standard output whose reader has gone, or whose disk is full."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    def flush(self) -> None:
        raise OSError(self._code, "gone")


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC])
def test_a_sentence_that_nobody_hears_is_no_error(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(sys, "stdout", Gone(code))
    Announcer(as_json=False).say("Store process ended with -9: starting it again.")


def test_a_reader_that_is_stuck_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        saying = threading.Thread(target=Announcer(as_json=False).say, args=("Hi.",), daemon=True)
        saying.start()
        saying.join(60)
        is_stuck = saying.is_alive()
        os.read(reading, 65536)  # ends one that is stuck
        saying.join(60)
    assert not is_stuck
