"""Logs: one line for each event, as JSON or for a console, for this code and for libraries.

Payloads, keys, cookies and users' e-mails must never be passed to a logger: nothing here filters
them. Operators are named in the lines of their actions. The line of a request is a struct that is
encoded directly, because structlog took 15 µs of a request of 95 µs.

A thread writes the lines several times a second, so that a slow reader never delays a request. When
the reader does not keep up, lines beyond the buffer's limit are dropped, and a line says how many.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from inngest_outbox.observe.printable import escaped_json, printable, printable_lines

_encode = msgspec.json.Encoder(enc_hook=str).encode
FLUSH_SECONDS = 0.2
MAX_BUFFERED_LINES = 50_000


class RequestLine(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One request and its answer. `ms` is its duration in milliseconds."""

    event: str
    level: str
    timestamp: str
    request_id: str
    method: str
    route: str | None
    status: int
    ms: float
    code: str | None = None
    event_id: str | None = None


class RequestLog:
    """Writes the lines of requests by `write`. Before logs are configured it drops them."""

    def __init__(self) -> None:
        self.enabled = False
        self.write: Callable[[RequestLine], None] = lambda _: None

    def point_at(self, stream: LogStream, *, enabled: bool, console: bool) -> None:
        """Write to `stream` from now on. With `console`, structlog renders the lines."""
        self.enabled = enabled
        self.write = _to_structlog if console else functools.partial(_to_stream, stream)


request_log = RequestLog()


def timestamp() -> str:
    """Now, as ISO 8601 in UTC with milliseconds."""
    now = time.time()
    return f"{_second(int(now))}.{int(now * 1000) % 1000:03d}Z"


def configure_logs(*, level: str, format_name: str, stream: TextIO | None = None) -> LogStream:
    """Send structlog's and the standard library's logs to `stream` (default: standard error).

    `format_name` is `json`, `console` or `auto` (console on a terminal). The returned buffer is
    written when the process ends, after a crash too, but not by `os._exit`.
    """
    target = stream or sys.stderr
    buffer = LogStream(target.fileno())
    atexit.register(buffer.close)
    console = format_name == "console" or (format_name == "auto" and target.isatty())
    *shared, renderer = for_people(target) if console else [*_named(), _render_json]
    number = logging.getLevelNamesMapping()[level.upper()]
    lines = _Lines(buffer)
    structlog.configure(
        processors=[*shared, lines.note_urgency, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=lines),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    request_log.point_at(buffer, enabled=number <= logging.INFO, console=console)
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_no_given_up_lookup)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    return buffer


def for_people(stream: TextIO) -> list[Processor]:
    """The processors of lines for people, in colours on a terminal."""
    # structlog's own tracebacks show the variables of each frame, and they may be secrets.
    plain = structlog.dev.plain_traceback
    colours = stream.isatty()
    renderer = structlog.dev.ConsoleRenderer(
        colors=colours, sort_keys=False, exception_formatter=plain
    )
    return [*_named(), _make_printable, renderer]


def _named() -> list[Processor]:
    """The processors that add the level, the time and the traceback."""
    return [structlog.processors.add_log_level, _stamp, structlog.processors.format_exc_info]


def _is_no_given_up_lookup(record: logging.LogRecord) -> bool:
    """False for a lookup of an address that fails when its caller has given up.

    aiohttp shields lookups. From Python 3.14 on, asyncio.shield tells the event loop of their
    error, with a traceback. The caller has said already that it did not get through.
    """
    error = record.exc_info and record.exc_info[1]
    return not (isinstance(error, OSError) and "in shielded future" in str(record.msg))


class _Lines:
    """The buffer as structlog's file. structlog flushes each line; here a warning or worse is."""

    def __init__(self, buffer: LogStream) -> None:
        self.write = buffer.write
        self._buffer = buffer
        self._is_urgent = False

    def note_urgency(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Remember whether the line that is being made should be seen at once."""
        del logger
        self._is_urgent |= method not in ("debug", "info")
        return event

    def flush(self) -> None:
        """Have the buffer written now after an urgent line; others wait for its thread."""
        if self._is_urgent:
            self._is_urgent = False
            self._buffer.flush()


_last_second = (0, "")


def _second(now: int) -> str:
    global _last_second  # noqa: PLW0603  (formatting a second once instead of for each line)
    if _last_second[0] != now:
        _last_second = (now, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)))
    return _last_second[1]


def _stamp(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del logger, method
    event["timestamp"] = timestamp()
    return event


def _to_stream(stream: LogStream, line: RequestLine) -> None:
    stream.write_line(_encode(line) + b"\n")


def _to_structlog(line: RequestLine) -> None:
    fields = msgspec.to_builtins(line)
    structlog.get_logger().info(fields.pop("event"), **fields)


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    del logger, method
    given = {key: value for key, value in event.items() if value is not None}
    return escaped_json(_encode(given).decode())


def _make_printable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A console shows the words of others: none of them may steer the terminal.

    Fields that are not known are left out. A traceback keeps its lines.
    """
    del logger, method
    shown = {
        key: printable(one) if isinstance(one, str) else one
        for key, one in event.items()
        if one is not None
    }
    if traceback := event.get("exception"):
        shown["exception"] = printable_lines(traceback)
    return shown


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
            lost = {"event": "log_lines_lost", "level": "warning", "timestamp": timestamp()}
            lines.append(_encode({**lost, "count": self._lost}) + b"\n")
            self._lost = 0
        text = memoryview(b"".join(lines))
        # With a closed descriptor or a full disk the lines are lost; the service continues.
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._descriptor, text) :]
