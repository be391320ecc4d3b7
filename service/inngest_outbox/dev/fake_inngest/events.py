"""Reading a request's events as the Event API does: one by one, up to the first bad one.

Owns the API's rules and limits (Inngest v1.43: pkg/api, pkg/eventstream, pkg/event). The
invariant: the events before a bad one are accepted, and nothing after it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from inngest_outbox.dev.fake_inngest.lenient_json import (
    NOT_JSON,
    check_numbers,
    plain_event,
    walk_array,
)

MAX_EVENTS = 5_000
MAX_EVENT_BYTES = 3_145_728
MAX_SESSIONS = 5
_MAX_SESSION_KEY_BYTES = 128
_MAX_SESSION_ID_BYTES = 512
FIRST_TS_MS = 315_532_800_000  # 1980-01-01
LAST_TS_MS = 4_102_444_800_000  # 2100-01-01

_SPACE = b" \t\r\n"
_RESERVED = "inngest/"
_INTERNAL_KEY = "_inngest"
_INTERNAL_MARK = b'"_inngest"'


class WireEvent(msgspec.Struct, frozen=True, gc=False):
    """A good event. `id` is empty and `ts` 0 where none was given; `raw` is its JSON."""

    id: str
    name: str
    ts: int
    data: bytes
    raw: bytes


class Reading(msgspec.Struct, frozen=True, gc=False):
    """The leading good events, and why reading stopped before the end (None: it did not)."""

    events: list[WireEvent]
    error: str | None = None


class _Fields(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str | None = None
    id: str | None = None
    ts: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    user: msgspec.Raw = msgspec.Raw(b"null")
    meta: msgspec.Raw = msgspec.Raw(b"null")
    v: str | None = None


_decode_fields = msgspec.json.Decoder(_Fields).decode
_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode
_find_long_number = re.compile(rb"[0-9]{309}").search


def read_events(body: bytes, refuse: Callable[[WireEvent], str | None] | None = None) -> Reading:
    """Read an array of events, or one event; an empty body holds none.

    `refuse` adds a rule: its words stop the reading at that event.
    """
    events: list[WireEvent] = []
    try:
        for raw in _split(body):
            if len(events) == MAX_EVENTS:
                return Reading(events, f"A request takes at most {MAX_EVENTS} events")
            event = _read_event(raw)
            words = refuse(event) if refuse else None
            if words is not None:
                return Reading(events, words)
            events.append(event)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return Reading(events, str(error))
    return Reading(events)


def count_events(body: bytes) -> int:
    """The number of elements of a well-formed array; nothing in them is checked."""
    return len(_split_array(body)) if body else 0


def decode_data(event: WireEvent) -> dict[str, msgspec.Raw]:
    """The top-level keys of an event's data, their values still encoded."""
    return _decode_object(event.data) if event.data.startswith(b"{") else {}


def _split(body: bytes) -> Iterable[bytes | msgspec.Raw]:
    text = body.lstrip(_SPACE)
    if not text:
        return ()
    if text.startswith(b"{"):
        return (text,)
    if not text.startswith(b"["):
        raise ValueError(NOT_JSON)
    try:
        return _split_array(text)
    except (msgspec.DecodeError, RecursionError):
        return walk_array(text)


def _read_event(raw: bytes | msgspec.Raw) -> WireEvent:
    encoded = bytes(raw)
    if len(encoded) > MAX_EVENT_BYTES:
        raise ValueError(f"Event is too large: at most {MAX_EVENT_BYTES} bytes")
    if encoded[:1] != b"{":
        raise ValueError("Event must be an object")
    try:
        fields = _fields(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError):
        encoded = plain_event(encoded)
        fields = _fields(encoded)
    _check(fields)
    data = bytes(fields.data)
    if _INTERNAL_MARK in data:
        encoded, data = _strip_internal(encoded, data)
    return WireEvent(fields.id or "", fields.name or "", fields.ts or 0, data, encoded)


def _fields(encoded: bytes) -> _Fields:
    fields = _decode_fields(encoded)
    for name, value in (("data", fields.data), ("user", fields.user)):
        if not isinstance(_decode(value), dict | None):
            raise ValueError(f"Event {name} must be an object or null")  # noqa: TRY004
        if _find_long_number(value):
            check_numbers(bytes(value))
    _check_meta(_decode(fields.meta))
    return fields


def _check(fields: _Fields) -> None:
    if not fields.name:
        raise ValueError("Event name must be present")
    # Go lowers a dotted capital I to a plain i.
    if fields.name[: len(_RESERVED)].replace("\u0130", "i").lower() == _RESERVED:
        raise ValueError(f"Event name is reserved: {_RESERVED} is Inngest's own prefix")
    if fields.ts and not FIRST_TS_MS <= fields.ts <= LAST_TS_MS:
        raise ValueError("Event ts must be in milliseconds, between 1980 and 2100")


def _check_meta(meta: object) -> None:
    """Raise ValueError for a meta that the API refuses."""
    if meta is None:
        return
    if not isinstance(meta, dict):
        raise ValueError("Event meta must be an object")  # noqa: TRY004
    layers = {name.casefold(): layer for name, layer in meta.items()}
    own = _session_layer(layers.get("sessions"))
    inherited = _session_layer(layers.get("propagated_sessions"))
    if None in inherited.values():
        raise ValueError("A propagated session is null")
    given = {key: value for key, value in own.items() if value is not None}
    if len(given) > MAX_SESSIONS:
        raise ValueError("Event sessions can include at most 5 entries")
    for key, value in [*given.items(), *inherited.items()]:
        _check_session(key, value)


def _session_layer(found: object) -> dict[str, object]:
    if not isinstance(found, dict | None):
        raise ValueError("Event sessions must be an object")  # noqa: TRY004
    return found or {}


def _check_session(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("A session must be a string or a number")  # noqa: TRY004
    sizes = (len(key.encode()), len(str(value).encode()))
    if not (0 < sizes[0] <= _MAX_SESSION_KEY_BYTES and 0 < sizes[1] <= _MAX_SESSION_ID_BYTES):
        raise ValueError("A session has an empty or a long key or id")


def _strip_internal(encoded: bytes, data: bytes) -> tuple[bytes, bytes]:
    inner = _decode_object(data)
    inner.pop(_INTERNAL_KEY, None)
    stripped = msgspec.json.encode(inner)
    event = _decode_object(encoded)
    event["data"] = msgspec.Raw(stripped)
    return msgspec.json.encode(event), stripped
