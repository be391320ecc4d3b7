"""The intake of events over HTTP: all checks in order, then one durable append.

Every event type has a route of its own; all share this handler. The first check that fails gives
the answer, and nothing is stored unless all pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec
from aiohttp import hdrs, web

from inngest_outbox.errors import InvalidFieldError, InvalidJsonError, RefusedError
from inngest_outbox.event_types.body_schema import SEND_AT
from inngest_outbox.event_types.event_type import EventType, Senders, operation_id
from inngest_outbox.identity.user import EVENT_KEY_ISSUER, User
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import NO_META, Event, encode_event
from inngest_outbox.outbox.keys import Digests, IdempotencyKey, plain_digests
from inngest_outbox.outbox.ports import Intake
from inngest_outbox.outbox.storable import MAX_DEPTH
from inngest_outbox.untyped_json import decode_untyped_object
from inngest_outbox.web.intake.event_examples import POST_REFUSALS
from inngest_outbox.web.intake.idempotency import IDEMPOTENCY_PARAMETER, idempotency_key
from inngest_outbox.web.intake.incoming import request_meta
from inngest_outbox.web.intake.lenient_json import LARGE_BYTES
from inngest_outbox.web.openapi.endpoint import (
    JSON,
    Access,
    Answer,
    Body,
    Endpoint,
    NamedSchema,
    ResponseHeader,
)
from inngest_outbox.web.server.body import check_depth, read_json_bytes
from inngest_outbox.web.server.middleware import event_id_key
from inngest_outbox.web.signin.auth import MACHINE_REFUSALS, SIGNED_IN_REFUSALS

MAX_BODY_BYTES = 1024 * 1024

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


class EventRoute:
    """The handler of one event type.

    `sender_of` returns the user or the machine of a request, or raises SessionRequiredError,
    CrossSiteRequestError or EventKeyRequiredError.
    """

    def __init__(
        self,
        kind: EventType,
        intake: Intake,
        sender_of: Callable[[web.Request], Awaitable[User]],
        recorder: Recorder,
        digests: Digests = plain_digests,
    ) -> None:
        self._kind = kind
        self._intake = intake
        self._sender_of = sender_of
        self._recorder = recorder
        self._digests = digests

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post(self._kind.path, self.post)]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        return [_described(self._kind)]

    async def post(self, request: web.Request) -> web.Response:
        """Accept one event."""
        kind = self._kind
        kind.require()
        user = await self._sender_of(request)
        kind.senders.check(user)
        event, key = await self._event(request, user)
        appending = self._intake.append(event, key=key)
        del event, key  # a front process needs neither while it waits for the store process
        receipt = await appending
        request[event_id_key] = receipt.event_id
        headers: dict[str, str] = {hdrs.LOCATION: f"/api/events/{receipt.event_id}"}
        if receipt.replayed:
            headers["Idempotent-Replayed"] = "true"
        else:
            self._recorder.count("accepted_by_type", name=kind.name)
            if user.issuer == EVENT_KEY_ISSUER:
                self._recorder.count("accepted_by_key", key=user.id)
        answer = b'{"status":"ok","eventId":"%s"}' % receipt.event_id.encode()
        return web.Response(body=answer, content_type=JSON, headers=headers)

    async def _event(self, request: web.Request, user: User) -> tuple[Event, IdempotencyKey | None]:
        """The request's event and its key; nothing else of the body is kept."""
        kind = self._kind
        raw = await read_json_bytes(request, max_bytes=MAX_BODY_BYTES, owner=user.owner)
        if len(raw) > LARGE_BYTES:  # so much would hold up other requests
            with _uncollected():
                body, key = await asyncio.to_thread(self._checked, request, raw)
        else:
            body, key = self._checked(request, raw)
        data = await kind.data(body, user)
        event = encode_event(kind.name, data, user, wall_now_ms())
        meta = request_meta(request)
        if (send_at := int(body.get(SEND_AT) or 0)) > event.accepted_at_ms:
            meta = msgspec.structs.replace(meta, due_at_ms=send_at)
        if meta is not NO_META:
            event = msgspec.structs.replace(event, meta=meta)
        return event, key

    def _checked(
        self, request: web.Request, raw: bytes
    ) -> tuple[dict[str, Any], IdempotencyKey | None]:
        body = self.read(raw)
        return body, idempotency_key(request, self._kind.path, body, self._digests)

    def read(self, raw: bytes) -> dict[str, Any]:
        """The checked body.

        Raises InvalidJsonError, InvalidFieldError, and what the event type's own check raises.
        """
        try:
            body = decode_untyped_object(raw)
        except msgspec.ValidationError as error:
            # Not an object, or an object with a number that is out of range.
            raise (InvalidFieldError if _is_object(raw) else InvalidJsonError) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._explain(raw)
            raise InvalidJsonError from error
        if len(raw) > MAX_DEPTH:
            check_depth(raw, body)
        self._kind.check_first(body)
        self._kind.body.check(body)
        return body

    def _explain(self, raw: bytes) -> None:
        """Let the event type report a lone surrogate, which the JSON decoder refuses."""
        try:
            found = json.loads(raw, parse_constant=_refuse)
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            if isinstance(found, dict):
                self._kind.check_first(found)
        except (ValueError, RecursionError):
            pass


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile: in a large body that takes ten times as long as decoding it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_object(raw: bytes) -> bool:
    return raw.lstrip(b" \t\r\n")[:1] == b"{"


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _described(kind: EventType) -> Endpoint:
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
        errors=(*_sign_in_refusals(kind.senders), *POST_REFUSALS, *kind.refusals),
    )


def _access(senders: Senders) -> Access:
    if not senders.machines:
        return Access.USER
    return Access.OWNER if senders.people else Access.EVENT_KEY


def _sign_in_refusals(senders: Senders) -> Sequence[type[RefusedError]]:
    known = SIGNED_IN_REFUSALS if senders.people else MACHINE_REFUSALS
    return (*known, *senders.refusals)
