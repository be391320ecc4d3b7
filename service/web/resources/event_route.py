"""The intake of events over HTTP: all checks in order, then one durable append.

An `EventType` declares a route: its path, body, event name and data. All share this handler, so a
new event type is one declaration. The first check that fails gives the answer, and nothing is
stored unless all pass.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import msgspec
from aiohttp import hdrs, web

from service.errors import (
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    InvalidFieldError,
    InvalidJsonError,
    OutboxFullError,
    OutboxUnavailableError,
    RefusedError,
    TooManyPendingError,
)
from service.identity.user import User
from service.outbox.clock import wall_now_ms
from service.outbox.event import encode_event
from service.outbox.keys import IdempotencyKey
from service.outbox.ports import Intake
from service.web.auth import SIGNED_IN_REFUSALS
from service.web.body import JSON_REFUSALS, check_utf8, faulty_field, read_json_bytes
from service.web.middleware import event_id_key
from service.web.openapi.endpoint import Answer, Endpoint, Parameter, ResponseHeader
from service.web.openapi.endpoint import Body as RequestBody

MAX_BODY_BYTES = 1024 * 1024
IDEMPOTENCY_KEY = "Idempotency-Key"
_JSON = "application/json"
_KEY = "[!-~]{1,255}"
_is_visible_ascii = re.compile(_KEY).fullmatch
_encode = msgspec.json.Encoder(order="sorted").encode

_REFUSALS = (
    *SIGNED_IN_REFUSALS,
    *JSON_REFUSALS,
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    TooManyPendingError,
    OutboxFullError,
    OutboxUnavailableError,
)

_EXAMPLE_ID = "019aa0a7-3a17-7a51-9d9a-6d2f0f5a9a10"
_KEY_PARAMETER = Parameter(
    IDEMPOTENCY_KEY,
    "A repeat with the same key and body is the same event and gets the same answer.",
    {"type": "string", "pattern": f"^{_KEY}$", "minLength": 1, "maxLength": 255},
    place="header",
)

Body = TypeVar("Body", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class EventType(Generic[Body]):
    """One kind of event that front ends may post.

    `check` validates a decoded body and raises RefusedError. `data` makes the event's data from it
    for a user. `require` raises when this type can't be accepted at all, for example without its
    configuration. `send_at` gives the time, in ms since 1970, before which the event is not sent.
    `required` names the fields that `check` requires. `example` is a valid body.
    """

    path: str
    name: str
    body: type[Body]
    summary: str
    check: Callable[[Body], None]
    data: Callable[[Body, User], Awaitable[msgspec.Struct]]
    require: Callable[[], None] = lambda: None
    refusals: Sequence[type[RefusedError]] = ()
    required: Sequence[str] = ()
    send_at: Callable[[Body], int | None] = lambda _: None
    example: Mapping[str, object] = field(default_factory=dict)


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


class EventRoute(Generic[Body]):
    """The handler of one event type.

    `user_of` returns the user of a state-changing request, or raises SessionRequiredError or
    CrossSiteRequestError.
    """

    def __init__(
        self,
        kind: EventType[Body],
        intake: Intake,
        user_of: Callable[[web.Request], Awaitable[User]],
    ) -> None:
        self._kind = kind
        self._intake = intake
        self._user_of = user_of
        self._decode = msgspec.json.Decoder(kind.body).decode

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post(self._kind.path, self.post)]

    def endpoints(self) -> list[Endpoint]:
        """What the API's description says."""
        kind = self._kind
        return [
            Endpoint(
                method="POST",
                path=kind.path,
                name=_operation_id(kind.name),
                tag="events",
                summary=kind.summary,
                parameters=[_KEY_PARAMETER],
                body=RequestBody(kind.body, kind.example, kind.required),
                answers={200: _ACCEPTED},
                errors=(*_REFUSALS, *kind.refusals),
            )
        ]

    async def post(self, request: web.Request) -> web.Response:
        """Accept one event."""
        kind = self._kind
        kind.require()
        user = await self._user_of(request)
        body = self._parse(await read_json_bytes(request, max_bytes=MAX_BODY_BYTES))
        kind.check(body)
        key = _idempotency_key(request, kind.name, body)
        data = await kind.data(body, user)
        event = encode_event(kind.name, data, user, wall_now_ms())
        if (send_at := kind.send_at(body)) and send_at > event.accepted_at_ms:
            event = msgspec.structs.replace(event, due_at_ms=send_at)
        receipt = await self._intake.append(event, key=key)
        request[event_id_key] = receipt.event_id
        headers: dict[str, str] = {hdrs.LOCATION: f"/api/events/{receipt.event_id}"}
        if receipt.replayed:
            headers["Idempotent-Replayed"] = "true"
        answer = b'{"status":"ok","eventId":"%s"}' % receipt.event_id.encode()
        return web.Response(body=answer, content_type=_JSON, headers=headers)

    def _parse(self, raw: bytes) -> Body:
        check_utf8(raw)
        try:
            return self._decode(raw)
        except msgspec.ValidationError as error:
            if _is_object(raw):
                raise InvalidFieldError(faulty_field(error)) from error
            raise InvalidJsonError from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._explain(raw)
            raise InvalidJsonError from error

    def _explain(self, raw: bytes) -> None:
        """Let the body's check report a lone surrogate, which the JSON decoder refuses."""
        try:
            found = json.loads(raw, parse_constant=_refuse)
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            if isinstance(found, dict):
                fields = msgspec.structs.fields(self._kind.body)
                names = {field.encode_name: field.name for field in fields}
                known = {names[key]: value for key, value in found.items() if key in names}
                self._kind.check(self._kind.body(**known))
        except (ValueError, RecursionError):
            return


def _idempotency_key(
    request: web.Request, name: str, body: msgspec.Struct
) -> IdempotencyKey | None:
    given = request.headers.get(IDEMPOTENCY_KEY)
    if given is None:
        return None
    if not _is_visible_ascii(given):
        raise IdempotencyKeyInvalidError
    return IdempotencyKey(given, hashlib.sha256(name.encode() + b"\0" + _encode(body)).digest())


def _operation_id(event_name: str) -> str:
    """A name for the endpoint of an event.

    >>> _operation_id("documents/aws.index")
    'postDocumentsAwsIndex'
    """
    words = re.findall(r"[A-Za-z0-9]+", event_name)
    return "post" + "".join(word[0].upper() + word[1:] for word in words)


def _is_object(raw: bytes) -> bool:
    return raw.lstrip(b" \t\r\n")[:1] == b"{"


def _refuse(constant: str) -> float:
    raise ValueError(constant)
