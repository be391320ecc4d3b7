"""A buffer for log lines that a thread writes, so that a slow log reader never delays a request.

The thread writes several times a second, and at once after `flush`. When the reader does not keep
up, lines beyond the buffer's limit are dropped. A line says how many, as soon as the reader reads.
"""

from __future__ import annotations

import contextlib
import os
import threading

FLUSH_SECONDS = 0.2
MAX_BUFFERED_LINES = 50_000


class LogStream:
    """A text stream over the file descriptor `descriptor`, which stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._lost = 0
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Add text; it must end with a newline."""
        self.write_line(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def write_line(self, line: bytes) -> None:
        """Add a line, including its newline."""
        if len(self._lines) < MAX_BUFFERED_LINES:
            self._lines.append(line)
        else:
            self._lost += 1

    def flush(self) -> None:
        """Ask the thread to write now; does not wait."""
        self._wake.set()

    def close(self) -> None:
        """Write what is buffered and end the thread, within a second."""
        self._closed = True
        self._wake.set()
        self._thread.join(1)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self._write_buffer()
        self._write_buffer()

    def _write_buffer(self) -> None:
        lines, self._lines = self._lines, []
        if self._lost:
            lines.append(b'{"event":"log_lines_lost","level":"warning","count":%d}\n' % self._lost)
            self._lost = 0
        text = memoryview(b"".join(lines))
        # With a closed descriptor or a full disk the lines are lost; the service continues.
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._descriptor, text) :]
