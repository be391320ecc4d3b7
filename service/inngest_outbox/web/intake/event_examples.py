"""Parameters, examples and refusals that the event endpoints share in the API's description."""

from __future__ import annotations

from collections.abc import Mapping

from inngest_outbox.errors import (
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    OutboxFullError,
    OutboxUnavailableError,
    TooManyPendingError,
)
from inngest_outbox.event_types.body_schema import SEND_AT, SEND_AT_SCHEMA
from inngest_outbox.web.intake.incoming import MAX_NAME_CHARS
from inngest_outbox.web.intake.lenient_json import MAX_EVENTS
from inngest_outbox.web.openapi.endpoint import Body, Parameter, ResponseHeader
from inngest_outbox.web.server.body import JSON_REFUSALS

EVENT_ID = Parameter(
    "id",
    "The `eventId` of the answer to the post, Inngest's id, or the id that the sender chose.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    place="path",
)
RUN_EXAMPLE: dict[str, object] = {
    "id": "01KB08Z5RZ0V5GYE3Q0N7J7Q4T",
    "function": "index-document",
    "status": "completed",
    "startedAt": 1795559419930,
    "endedAt": 1795559421215,
    "output": {"pages": 12},
    "url": "http://127.0.0.1:8288/run?runID=01KB08Z5RZ0V5GYE3Q0N7J7Q4T",
}
EVENT_EXAMPLE: dict[str, object] = {
    "id": "019aa0a7-3a17-7a51-9d9a-6d2f0f5a9a10",
    "inngestId": "01KB08Z4Q0XW5M7T3Y8S000017",
    "name": "documents/aws.index",
    "state": "delivered",
    "attempts": 1,
    "acceptedAt": 1795559419447,
    "deliveredAt": 1795559419480,
    "reason": None,
    "run": RUN_EXAMPLE,
    "otherRuns": [],
    "noRun": False,
    "idUsed": False,
    "final": True,
}
_EVENT_FIELDS: dict[str, object] = {
    "name": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME_CHARS,
        "description": "Not `inngest/…`.",
    },
    "data": {"type": ["object", "null"]},
    "id": {
        "type": ["string", "null"],
        "maxLength": MAX_NAME_CHARS,
        "description": "The same name and id within 24 h is the same event.",
    },
    "ts": {"type": ["integer", "null"], "description": "Milliseconds since 1970."},
    "user": {"type": ["object", "null"]},
    "v": {"type": ["string", "null"]},
}


def _body(schema: Mapping[str, object]) -> Body:
    """One event, or an array of them."""
    return Body(
        {"oneOf": [schema, {"type": "array", "items": schema, "maxItems": MAX_EVENTS}]},
        [{"name": "report/requested", "data": {"month": "2026-10"}, "id": "report-2026-10"}],
    )


EVENTS_BODY = _body({"type": "object", "required": ["name"], "properties": _EVENT_FIELDS})
DELAYED_EVENTS_BODY = _body(
    {
        "type": "object",
        "required": ["name"],
        "properties": {**_EVENT_FIELDS, SEND_AT: SEND_AT_SCHEMA},
    }
)
REPLAYED = ResponseHeader(
    "Idempotent-Replayed", "Set when no new event was made.", {"const": "true"}
)
# Beside those that say who may post.
POST_REFUSALS = (
    *JSON_REFUSALS,
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    TooManyPendingError,
    OutboxFullError,
    OutboxUnavailableError,
)
