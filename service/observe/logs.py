"""Logs: one line an event, JSON or console, the same for our own code and for libraries.

Lines are written to a buffer that is flushed several times a second and at once for warnings, so
that a busy service does not pay a system call for each. What must never be logged (payloads, keys,
cookies, e-mails) is kept out where it arises; nothing here tries to recognise it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

FLUSH_SECONDS = 0.2
_BUFFER_BYTES = 64 * 1024
_encode = msgspec.json.Encoder(enc_hook=str).encode


class LogStream:
    """A buffered text stream over a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        self._text = io.TextIOWrapper(
            io.BufferedWriter(raw, _BUFFER_BYTES), encoding="utf-8", errors="backslashreplace"
        )

    def write(self, text: str) -> int:
        """Add text to the buffer."""
        return self._text.write(text)

    def flush(self) -> None:
        """Hand the buffer to the system; a reader that is gone or a full disk loses lines."""
        try:
            self._text.flush()
        except (OSError, ValueError):
            return

    async def keep_flushing(self) -> None:
        """Flush regularly, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()


def configure_logs(*, level: str, format_name: str, stream: TextIO | None = None) -> LogStream:
    """Send structlog's and the standard library's logs to `stream` (default: standard error).

    `format_name` is `json`, `console` or `auto` (console on a terminal). Returns the buffer, to
    be flushed.
    """
    target = stream or sys.stderr
    buffer = LogStream(target.fileno())
    console = format_name == "console" or (format_name == "auto" and target.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=target.isatty()) if console else _render_json
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, _Flusher(buffer), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=buffer),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    return buffer


class _Flusher:
    """Marks the buffer for an immediate flush after a warning or worse."""

    def __init__(self, buffer: LogStream) -> None:
        self._buffer = buffer

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger
        if method not in ("debug", "info"):
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return event
            loop.call_soon(self._buffer.flush)
        return event


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    del logger, method
    known: dict[str, Any] = {key: value for key, value in event.items() if value is not None}
    return _encode(known).decode()
