"""What the API's description says about the endpoint of an event type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from service.errors import (
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    OutboxFullError,
    OutboxUnavailableError,
    RefusedError,
    TooManyPendingError,
)
from service.event_types.event_type import EventType, operation_id
from service.event_types.senders import Senders
from service.web.intake.event_key_auth import MACHINE_REFUSALS
from service.web.intake.idempotency import IDEMPOTENCY_PARAMETER
from service.web.openapi.endpoint import Access, Answer, Body, Endpoint, NamedSchema, ResponseHeader
from service.web.server.body import JSON_REFUSALS
from service.web.signin.auth import SIGNED_IN_REFUSALS

_REFUSALS = (
    *JSON_REFUSALS,
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    TooManyPendingError,
    OutboxFullError,
    OutboxUnavailableError,
)
_EXAMPLE_ID = "019aa0a7-3a17-7a51-9d9a-6d2f0f5a9a10"


class Accepted(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The answer to an accepted event."""

    status: Literal["ok"]
    event_id: str


_ACCEPTED = Answer(
    "The event is on disk and will be delivered",
    Accepted,
    {"status": "ok", "eventId": _EXAMPLE_ID},
    headers=[
        ResponseHeader("Location", "Where to follow the event."),
        ResponseHeader(
            "Idempotent-Replayed",
            "Set when the Idempotency-Key was used before: no second event was made.",
            {"const": "true"},
        ),
    ],
)


def describe_event_type(kind: EventType) -> Endpoint:
    """The endpoint that takes the events of `kind`."""
    operation = operation_id(kind.name)
    component = f"{operation[0].upper()}{operation[1:]}Body"
    return Endpoint(
        method="POST",
        path=kind.path,
        name=operation,
        tag="events",
        summary=kind.summary,
        access=_access(kind.senders),
        parameters=[IDEMPOTENCY_PARAMETER],
        body=Body(NamedSchema(component, kind.body.schema), kind.body.example),
        answers={200: _ACCEPTED},
        errors=(*_sign_in_refusals(kind.senders), *_REFUSALS, *kind.refusals),
    )


def _access(senders: Senders) -> Access:
    if not senders.machines:
        return Access.USER
    return Access.OWNER if senders.people else Access.EVENT_KEY


def _sign_in_refusals(senders: Senders) -> Sequence[type[RefusedError]]:
    known = SIGNED_IN_REFUSALS if senders.people else MACHINE_REFUSALS
    return (*known, *senders.refusals)
