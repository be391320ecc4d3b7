"""The sessions of an event's meta, checked as Inngest checks them.

`sessions` are the client's own; a null there takes an inherited one away. `propagated_sessions`
are inherited from the run that sent the event.
"""

from __future__ import annotations

import msgspec

from service.outbox.incoming_json import BadEventError, Fields, fields_of

MAX_SESSIONS = 5
MAX_KEY_BYTES = 128
MAX_ID_BYTES = 512

_LAYERS = frozenset({"sessions", "propagated_sessions"})
_NULL = b"null"
_decode_layer = msgspec.json.Decoder(Fields | None).decode
_decode_id = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def checked_meta(meta: msgspec.Raw) -> msgspec.Raw | msgspec.UnsetType:
    """The meta without what Inngest ignores. Raises BadEventError or msgspec.DecodeError.

    Own sessions that are null as a whole take all inherited ones away.
    """
    layers = {} if bytes(meta) == _NULL else fields_of(bytes(meta), _LAYERS)
    own = _checked_layer(layers.get("sessions"), may_be_null=True)
    _checked_layer(layers.get("propagated_sessions"), may_be_null=False)
    if own > MAX_SESSIONS:
        raise BadEventError(f"The event's meta has more than {MAX_SESSIONS} sessions")
    return msgspec.Raw(_encode(layers))


def _checked_layer(layer: msgspec.Raw | None, *, may_be_null: bool) -> int:
    """How many sessions it has."""
    sessions = (_decode_layer(layer) if layer else None) or {}
    named = {key: bytes(value) for key, value in sessions.items()}
    if not may_be_null and _NULL in named.values():
        raise BadEventError("An inherited session of the event's meta is null")
    held = {key: value for key, value in named.items() if value != _NULL}
    for key, value in held.items():
        _check_session(key, value)
    return len(held)


def _check_session(key: str, value: bytes) -> None:
    if value[:1] not in b'"-0123456789':
        raise BadEventError("A session of the event's meta is not a string or a number")
    session_id = _decode_id(value).encode() if value.startswith(b'"') else value
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES or not 0 < len(session_id) <= MAX_ID_BYTES:
        raise BadEventError("A session of the event's meta has an empty or a long key or id")
