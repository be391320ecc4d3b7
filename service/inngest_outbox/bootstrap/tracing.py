"""Tracing of a process; without OTEL_EXPORTER_OTLP_ENDPOINT nothing of it is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import structlog
from aiohttp.typedefs import Middleware

from inngest_outbox.config.settings import Settings
from inngest_outbox.outbox.model import Batch
from inngest_outbox.outbox.ports import Intake

log = structlog.get_logger(__name__)


class Tracing(Protocol):
    """Wraps requests, appends and sends in spans; see inngest_outbox.bootstrap.otel."""

    @property
    def middleware(self) -> Middleware:
        """A span around each request."""
        ...

    def intake(self, intake: Intake) -> Intake:
        """The same intake with a span around each append."""
        ...

    def around_send(self, batch: Batch) -> AbstractContextManager[object]:
        """A span around a send."""
        ...

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        ...


@contextlib.contextmanager
def start_tracing(settings: Settings) -> Iterator[Tracing | None]:
    """The tracing of this process, None when it is off or its extra is not installed."""
    if not settings.otel_exporter_otlp_endpoint:
        yield None
        return
    try:
        from inngest_outbox.bootstrap.otel import Tracing as OtelTracing

        tracing = OtelTracing()
    except ImportError as error:
        log.warning("not_traced", reason=f"install inngest-outbox[otel]: no {error.name}")
        yield None
        return
    try:
        yield tracing
    finally:
        tracing.close()
