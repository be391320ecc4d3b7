"""OpenTelemetry, when OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `otel` is installed.

Spans for a request, for the append within it, and for each send, which links to the appends of its
events: their trace context lies in the rows, so that the link holds over restarts. Only this module
imports the SDK, and nothing imports this module unless tracing is on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.model import Batch, Row
from inngest_outbox.outbox.ports import Intake

_SERVICE = "inngest-outbox"
_SERVER_ERROR = 500
_STATUS_CODE = "http.response.status_code"
_MOST_LINKS = 128
_CLOSE_SECONDS = 3.0
_TRACEPARENT = "traceparent"


class Tracing:
    """Wraps what is traced. Spans go to `exporter`, by default to the OTLP endpoint."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        named = Resource({SERVICE_NAME: _SERVICE}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A span around each request, in the trace that its `traceparent` names."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "unknown"
        with self._tracer.start_as_current_span(
            f"{request.method} {route}",
            self._context(request.headers.get(_TRACEPARENT)),
            SpanKind.SERVER,
            {"http.request.method": request.method, "http.route": route},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                response = await handler(request)
            except web.HTTPException as redirect:  # other errors are answers here
                span.set_attribute(_STATUS_CODE, redirect.status)
                raise
            span.set_attribute(_STATUS_CODE, response.status)
            if response.status >= _SERVER_ERROR:
                span.set_status(StatusCode.ERROR)
            return response

    def intake(self, intake: Intake) -> Intake:
        """The same intake with a span around each append; its context goes into the row."""
        return _TracedIntake(intake, self)

    @contextlib.contextmanager
    def around_send(self, batch: Batch) -> Iterator[None]:
        """A span around a send, linked to what appended its events."""
        contexts = {entry.meta.trace for entry in batch.entries if entry.meta.trace}
        with self._tracer.start_as_current_span(
            "outbox send",
            Context(),
            SpanKind.CLIENT,
            {"messaging.batch.message_count": len(batch.entries), "outbox.claim": batch.claim},
            links=[self._link(context) for context in sorted(contexts)[:_MOST_LINKS]],
        ):
            yield

    @contextlib.contextmanager
    def around_append(self, events: Sequence[Event]) -> Iterator[list[Event]]:
        """A span around an append; gives the events with its context."""
        with self._tracer.start_as_current_span(
            "outbox append",
            kind=SpanKind.PRODUCER,
            attributes=_said_of(events),
        ):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            trace = carrier.get(_TRACEPARENT)
            yield [replace(event, meta=replace(event.meta, trace=trace)) for event in events]

    def close(self) -> None:
        """Send what is left, for a few seconds at most: a collector that is away delays no stop."""
        # The SDK waits for its exporter, whatever time it is given; a thread can be left behind.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="otel-close")
        closing.start()
        closing.join(_CLOSE_SECONDS)

    def _context(self, traceparent: str | None) -> Context:
        carrier = {_TRACEPARENT: traceparent} if traceparent else {}
        return self._propagator.extract(carrier, Context())

    def _link(self, traceparent: str) -> Link:
        span: Span = get_current_span(self._context(traceparent))
        return Link(span.get_span_context())


class _TracedIntake:
    def __init__(self, intake: Intake, tracing: Tracing) -> None:
        self._intake = intake
        self._tracing = tracing

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        """See Intake.append."""
        with self._tracing.around_append((event,)) as [traced]:
            return await self._intake.append(traced, key=key)

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        """See Intake.append_all."""
        with self._tracing.around_append(events) as traced:
            return await self._intake.append_all(traced, keys)

    async def find(self, event_id: str) -> Row | None:
        """See Intake.find."""
        return await self._intake.find(event_id)


def _said_of(events: Sequence[Event]) -> dict[str, str | int]:
    if len(events) == 1:
        return {"messaging.message.id": events[0].id, "outbox.event_name": events[0].name}
    return {"messaging.batch.message_count": len(events)}
