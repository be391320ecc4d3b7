"""The event: its wire form, validated and encoded once, at intake.

Applies the rules of Inngest's Event API, so that no event is accepted that Inngest would refuse.
The bytes made here are stored and sent; an event is never encoded a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import uuid_utils

from service.errors import InvalidFieldError
from service.identity.user import User

MAX_EVENT_BYTES = 3_145_728
VERSION = "1"
FIRST_TS_MS = 315_532_800_000  # 1980-01-01
LAST_TS_MS = 4_102_444_800_000  # 2100-01-01

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True, gc=False):
    """An accepted event.

    `payload` is the encoded wire form; `accepted_at_ms` is wall time. `owner` decides its quota,
    its idempotency keys and its visibility; `user_id` is for people to read. It is not sent before
    `due_at_ms`, wall time; 0 is at once. `wire_id` is the id in the payload where the client chose
    it; None says that it is `id`. `environment` is the Inngest environment that the event goes to;
    None is the service's own.
    """

    id: str
    name: str
    owner: str
    user_id: str
    accepted_at_ms: int
    payload: bytes
    due_at_ms: int = 0
    wire_id: str | None = None
    environment: str | None = None


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
    environments = [events[0].environment or "" for events in calls]
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
