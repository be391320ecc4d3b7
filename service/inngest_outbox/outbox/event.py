"""The event: its wire form, validated and encoded once, at intake.

Applies the rules of Inngest's Event API, so that no event is accepted that Inngest would refuse.
The bytes made here are stored and sent; an event is never encoded a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import uuid_utils

from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.identity.user import User

MAX_EVENT_BYTES = 3_145_728
VERSION = "1"
FIRST_TS_MS = 315_532_800_000  # 1980-01-01
LAST_TS_MS = 4_102_444_800_000  # 2100-01-01


class Meta(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The attributes that few events have. A store keeps them as they are, in one JSON column.

    They are not the payload's field `meta`, which is Inngest's.

    `wire_id` None says that the payload has the row's id. Else it has none, and one goes in front
    when it is sent: `wire_id`, which the client chose, or the row's ULID where that is empty.
    `environment` is the Inngest environment that the event goes to; None is the service's own. The
    event is not sent before `due_at_ms`, wall time; 0 is at once. `trace` is the W3C context of its
    append. `moved_id` is the ULID that a moved row brought from another outbox; None says that it
    is derived. `ts_ms` is the event's own time where it lies after its acceptance: Inngest runs the
    event then. `answered_id` is the ULID that Inngest gave the event where it is not the row's.
    `restored` says that the row came back from the journal: the event may have been sent.
    """

    wire_id: str | None = None
    environment: str | None = None
    due_at_ms: int = 0
    trace: str | None = None
    moved_id: str | None = None
    ts_ms: int = 0
    answered_id: str | None = None
    restored: bool = False


NO_META = Meta()

ULID_BYTES = len('""') + 26

_encode = msgspec.json.Encoder().encode
_decode_meta = msgspec.json.Decoder(Meta).decode


class Event(msgspec.Struct, frozen=True, gc=False):
    """An accepted event.

    `payload` is the encoded wire form; `accepted_at_ms` is wall time. `owner` decides its quota,
    its idempotency keys and its visibility; `user_id` is for people to read.
    """

    id: str
    name: str
    owner: str
    user_id: str
    accepted_at_ms: int
    payload: bytes
    meta: Meta = NO_META


def encode_meta(meta: Meta) -> str | None:
    """The JSON that a store keeps, None for an event without rare attributes.

    >>> encode_meta(Meta(environment="branch"))
    '{"environment":"branch"}'
    """
    return None if meta == NO_META else _encode(meta).decode()


def decode_meta(text: str | None) -> Meta:
    """The attributes that `encode_meta` encoded. Raises msgspec.DecodeError."""
    return NO_META if text is None else _decode_meta(text)


def with_id(payload: bytes, wire_id: str) -> bytes:
    """The payload, which has no id and at least one field, with `wire_id` as its id in front.

    >>> with_id(b'{"name":"a"}', "01J")
    b'{"id":"01J","name":"a"}'
    """
    return b'{"id":%b,%b' % (_encode(wire_id), payload[1:])


def check_call(events: Sequence[Event], keys: Sequence[object]) -> None:
    """Raise ValueError when the events have several owners, or not a key or None each."""
    if len(keys) != len(events):
        raise ValueError("a call has a key or None for each event")
    if len({event.owner for event in events}) > 1:
        raise ValueError("the events of one call are of one owner")


def payload_bytes(events: Sequence[Event]) -> int:
    """The size of all payloads."""
    return sum([len(event.payload) for event in events])


def by_environment(calls: Sequence[Sequence[Event]]) -> Sequence[int]:
    """The order in which the calls of one commit get their numbers: positions in `calls`.

    Events for one environment follow each other, so that one request to Inngest takes them all.
    """
    environments = [events[0].meta.environment or "" for events in calls]
    positions = range(len(calls))
    return sorted(positions, key=environments.__getitem__) if any(environments) else positions


class _Wire(msgspec.Struct, frozen=True, gc=False):
    id: str
    name: str
    ts: int
    v: str
    user: dict[str, str | None]
    data: Any


def encode_event(name: str, data: object, user: User, now_ms: int) -> Event:
    """Make the event `name` for `user` with a new id, accepted at `now_ms`.

    `data` encodes to a JSON object; encoded parts of it are `msgspec.Raw`.
    Raises InvalidFieldError when the event is larger than the Event API takes.
    """
    if not FIRST_TS_MS <= now_ms <= LAST_TS_MS:
        raise ValueError("the clock is outside 1980 to 2100")
    event_id = str(uuid_utils.uuid7())
    who = {"id": user.id, "email": user.email, "name": user.name}
    payload = _encode(_Wire(event_id, name, now_ms, VERSION, who, data))
    if len(payload) > MAX_EVENT_BYTES:
        raise InvalidFieldError("the event is larger than 3 MiB")
    return Event(event_id, name, user.owner, user.id, now_ms, payload)
