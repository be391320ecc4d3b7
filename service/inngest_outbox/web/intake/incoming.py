"""Events that a client encoded, read as Inngest's Event API reads them.

Owns the API's rules for an event (Inngest: pkg/api, pkg/eventstream, pkg/event). The
invariant: what is accepted here is accepted there. Events are read one after the other. Those
before a bad one are good, and nothing after it is read.

An event's field `meta` has two layers of sessions. `sessions` are the client's own; a null there
takes an inherited one away. `propagated_sessions` are inherited from the run that sent the event.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterator

import msgspec
import uuid_utils
from aiohttp import web

from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import (
    FIRST_TS_MS,
    LAST_TS_MS,
    MAX_EVENT_BYTES,
    NO_META,
    ULID_BYTES,
    Event,
    Meta,
)
from inngest_outbox.outbox.storable import is_too_deep, storable
from inngest_outbox.untyped_json import decode_untyped
from inngest_outbox.web.intake.lenient_json import (
    LARGE_BYTES,
    MAX_EVENTS,
    OUT_OF_RANGE,
    TOO_DEEP,
    TOO_LARGE,
    BadEventError,
    Fields,
    elements,
    faults,
    fields_of,
    has_many_digits,
    large_fields_of,
)

MAX_SESSIONS = 5
MAX_KEY_BYTES = 128
MAX_ID_BYTES = 512
# Of an event's name and of its id: lists, pages and metrics hold hundreds of them at once.
MAX_NAME_CHARS = 4_096

_LAYERS = frozenset({"sessions", "propagated_sessions"})
_RESERVED = "inngest/"
_FIRST_OF_RESERVED = "iI\u0130"
_SMALL_BYTES = 300
_NULL = b"null"
_NO_ID = Meta(wire_id="")
_SEND_AT = "sendat"  # names are compared in lower case
_ID_BYTES = len('"id":,')
_NAMES = frozenset({"name", "id", "ts", "v", "data", "user", "meta"})
_is_trace = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_Raw = msgspec.Raw | msgspec.UnsetType


class IncomingEvent(msgspec.Struct, frozen=True, gc=False):
    """A good event of a request, and its JSON as the client sent it."""

    event: Event
    raw: bytes


class _Given(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str | None = None
    id: str | None = None
    ts: int | None = None
    v: str | None = None
    data: _Raw = msgspec.UNSET
    user: _Raw = msgspec.UNSET
    meta: _Raw = msgspec.UNSET
    sendat: int | None = None


class _Wire(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    ts: int
    v: str | None = None
    data: _Raw = msgspec.UNSET
    user: _Raw = msgspec.UNSET
    meta: _Raw = msgspec.UNSET


_decode_given = msgspec.json.Decoder(_Given).decode
_decode_layer = msgspec.json.Decoder(Fields | None).decode
_decode_id = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def request_meta(request: web.BaseRequest, environment: str | None = None) -> Meta:
    """The attributes of all events of a request: `environment`, and its trace context if any."""
    trace = request.headers.get("traceparent")
    if trace is not None and not _is_trace(trace):
        trace = None
    return Meta(environment=environment, trace=trace) if trace or environment else NO_META


def read_events(
    body: bytes, user: User, now_ms: int, *, meta: Meta = NO_META, takes_send_at: bool = False
) -> Iterator[IncomingEvent | None]:
    """The events of an array, or one event; an empty body has none. They belong to `user`.

    None is a moment to let others run: what is large is read in pieces. `meta` is what the request
    says of all its events. An event without a ts is accepted at `now_ms`. `takes_send_at` takes the
    field `sendAt`, which Inngest ignores. Raises BadEventError at the first bad event, or after
    5,000.
    """
    owner = user.owner  # makes a text each time
    names = _NAMES | {_SEND_AT} if takes_send_at else _NAMES
    position = 0
    for raw in elements(body):
        if raw is None:
            yield None
            continue
        if position == MAX_EVENTS:
            raise BadEventError(f"A request takes at most {MAX_EVENTS} events")
        if len(raw) > MAX_EVENT_BYTES:
            raise BadEventError(TOO_LARGE)
        try:
            given = yield from _given(raw, names)
        except RecursionError as error:
            raise BadEventError(TOO_DEEP) from error
        if len(raw) > LARGE_BYTES:
            yield from _check_large(given)
        if not takes_send_at:
            given.sendat = None
        yield IncomingEvent(_event(given, user, owner, now_ms, meta), raw)
        position += 1


def _check_large(given: _Given) -> Iterator[None]:
    for field in (given.data, given.user):
        value = b"" if field is msgspec.UNSET else bytes(field)
        for words in faults(value) if len(value) > LARGE_BYTES else ():
            if words:
                raise BadEventError(words)
            yield None


def _event(given: _Given, user: User, owner: str, now_ms: int, meta: Meta) -> Event:
    name = _name(given.name)
    if max(len(name), len(given.id or "")) > MAX_NAME_CHARS:
        raise BadEventError(f"The event's name or id is longer than {MAX_NAME_CHARS} characters")
    client_id = storable(given.id) if given.id else None
    ts = _ts(given.ts) or now_ms
    payload = _encode(_Wire(name, ts, given.v, given.data, given.user, given.meta))
    id_bytes = _ID_BYTES + (len(_encode(client_id)) if client_id else ULID_BYTES)
    if len(payload) + id_bytes > MAX_EVENT_BYTES:
        raise BadEventError(TOO_LARGE)
    own = meta
    if client_id or meta is not NO_META or ts > now_ms or given.sendat:
        own = msgspec.structs.replace(
            meta,
            wire_id=client_id or "",
            ts_ms=ts if ts > now_ms else 0,
            due_at_ms=_due(given.sendat, now_ms),
        )
    return Event(
        str(uuid_utils.uuid7()),
        storable(name) if "\x00" in name else name,
        owner,
        user.id,
        now_ms,
        payload,
        _NO_ID if own is NO_META else own,
    )


def _due(send_at: int | None, now_ms: int) -> int:
    """The time that `sendAt` names, 0 for one that is over."""
    if send_at is None:
        return 0
    if not 0 <= send_at <= LAST_TS_MS:
        raise BadEventError("The event's sendAt must be in milliseconds, between 1970 and 2100")
    return send_at if send_at > now_ms else 0


def _given(raw: bytes, names: frozenset[str]) -> Generator[None, None, _Given]:
    """The fields of an event, looked through; a large one a piece at a time.

    Raises BadEventError, or RecursionError for what is nested too deeply.
    """
    if not raw.startswith(b"{"):
        raise BadEventError("An event must be an object")
    try:
        return _checked(_decode_given(raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # an unknown field, a name in another case, half a surrogate pair, or a fault
    try:
        if len(raw) > LARGE_BYTES:
            yield None
            fields = yield from large_fields_of(raw, names)
        else:
            fields = fields_of(raw, names)
        return _checked(_decode_given(_encode(fields)))
    except msgspec.ValidationError as error:
        raise BadEventError("A field of the event has a wrong type or is out of range") from error
    except msgspec.DecodeError as error:
        raise BadEventError("An event is not valid JSON") from error


def _checked(given: _Given) -> _Given:
    if given.data is not msgspec.UNSET:
        _check_object("data", given.data)
    if given.user is not msgspec.UNSET:
        _check_object("user", given.user)
    if given.meta is not msgspec.UNSET:
        given.meta = checked_meta(given.meta)
    return given


def checked_meta(meta: msgspec.Raw) -> msgspec.Raw | msgspec.UnsetType:
    """The field `meta` without what Inngest ignores. Raises BadEventError or msgspec.DecodeError.

    Own sessions that are null as a whole take all inherited ones away.
    """
    if len(bytes(meta)) > LARGE_BYTES:
        raise BadEventError(f"The event's meta is larger than {LARGE_BYTES} bytes")
    layers = {} if bytes(meta) == _NULL else fields_of(bytes(meta), _LAYERS)
    own = _checked_layer(layers.get("sessions"), may_be_null=True)
    _checked_layer(layers.get("propagated_sessions"), may_be_null=False)
    if own > MAX_SESSIONS:
        raise BadEventError(f"The event's meta has more than {MAX_SESSIONS} sessions")
    return msgspec.Raw(_encode(layers))


def _checked_layer(layer: msgspec.Raw | None, *, may_be_null: bool) -> int:
    """The number of its sessions."""
    sessions = (_decode_layer(layer) if layer else None) or {}
    named = {key: bytes(value) for key, value in sessions.items()}
    if not may_be_null and _NULL in named.values():
        raise BadEventError("An inherited session of the event's meta is null")
    present = {key: value for key, value in named.items() if value != _NULL}
    for key, value in present.items():
        _check_session(key, value)
    return len(present)


def _check_session(key: str, value: bytes) -> None:
    if value[:1] not in b'"-0123456789':
        raise BadEventError("A session of the event's meta is not a string or a number")
    session_id = _decode_id(value).encode() if value.startswith(b'"') else value
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES or not 0 < len(session_id) <= MAX_ID_BYTES:
        raise BadEventError("A session of the event's meta has an empty or a long key or id")


def _check_object(name: str, value: msgspec.Raw) -> None:
    """Raise BadEventError unless `value` is an object or null; a large one is checked later."""
    text = bytes(value)
    if not text.startswith(b"{") and text != _NULL:
        raise BadEventError(f"The event's {name} must be an object or null")
    if len(text) > LARGE_BYTES:
        text.isascii() or text.decode()
        return
    found = decode_untyped(text)
    if len(text) <= _SMALL_BYTES:
        return  # too short for so many levels or digits
    if is_too_deep(text, found):
        raise BadEventError(TOO_DEEP)
    if has_many_digits(text):
        json.loads(text, parse_int=_check_finite)


def _name(name: str | None) -> str:
    if not name:
        raise BadEventError("The event's name must be present")
    # Go lowers a dotted capital I to a plain i, Python does not.
    if (
        name[0] in _FIRST_OF_RESERVED
        and name[: len(_RESERVED)].replace("\u0130", "i").lower() == _RESERVED
    ):
        raise BadEventError(f"The event's name is reserved: {_RESERVED} is Inngest's own prefix")
    return name


def _ts(ts: int | None) -> int | None:
    if ts and not FIRST_TS_MS <= ts <= LAST_TS_MS:
        raise BadEventError("The event's ts must be in milliseconds, between 1980 and 2100")
    return ts


def _check_finite(text: str) -> None:
    if math.isinf(float(text)):
        raise BadEventError(OUT_OF_RANGE)
