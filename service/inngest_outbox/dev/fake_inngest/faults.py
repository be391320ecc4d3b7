"""Scripted faults: what goes wrong, for which requests, how often.

A script is a queue. A request meets the first fault that concerns it, and uses up one of its
`times`; later faults wait their turn. The invariant: a fault alters nothing but the requests that
it concerns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from inngest_outbox.dev.fake_inngest.events import Reading, WireEvent, decode_data

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ScriptedAnswer(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="answer"
):
    """Answer this instead. `body` None is the API's own error form; `store` accepts first."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    body: str | None = None
    content_type: str = "application/json"
    retry_after: int | str | None = None
    headers: dict[str, str] = {}
    store: bool = False


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="reset"):
    """Reset the connection: before the body is read, after it, or after storing its events.

    The last one is the lost answer: accepted, and the client can't know.
    """

    when: Literal["unread", "read", "stored"] = "read"


class Hang(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hang"):
    """Never answer, until the faults are cleared; `store` accepts the events first."""

    store: bool = False


class Slow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="slow"):
    """Accept the events, answer truly but `seconds` later."""

    seconds: _Seconds = 1.0


class Drip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="drip"):
    """Accept the events, answer truly but byte by byte, `seconds` apart."""

    seconds: _Seconds = 0.1


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cut"):
    """Accept the events, send `answer_bytes` of the true answer's body, then reset."""

    answer_bytes: Annotated[int, msgspec.Meta(ge=0)] = 10


class Partial(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="partial"
):
    """Answer 200, but take none of the last `missing` events.

    Their ids are left out, or empty when `blank`.
    """

    missing: _Positive = 1
    blank: bool = False


class TooLarge(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="too_large"
):
    """Answer 413 to a request with more than so many bytes or events; others pass."""

    max_bytes: int | None = None
    max_events: int | None = None


class Poison(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="poison"
):
    """Refuse the first event that matches as the API refuses a bad one: 400, with `error`."""

    error: str = "This event is poisoned"


Action = ScriptedAnswer | Reset | Hang | Slow | Drip | Cut | Partial | TooLarge | Poison


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events with a string in `data`, under `key`, that starts with `prefix`."""

    key: str = "documentName"
    prefix: str = "poison"

    def fits(self, event: WireEvent) -> bool:
        """True for an event that matches."""
        value = decode_data(event).get(self.key)
        if value is None or not bytes(value).startswith(b'"'):
            return False
        return msgspec.json.decode(value, type=str).startswith(self.prefix)


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the script: `action`, for the next `times` requests (None: until cleared).

    With `match` it concerns only requests that hold such an event.
    """

    action: Action
    times: _Positive | None = 1
    match: Match | None = None


class FaultScript:
    """The faults to come."""

    def __init__(self) -> None:
        self._script: list[Fault] = []
        self._released = asyncio.Event()

    @property
    def left(self) -> Sequence[Fault]:
        """The faults that are not used up, first one first."""
        return tuple(self._script)

    def add(self, action: Action, *, times: int | None = 1, match: Match | None = None) -> None:
        """Append a fault; see Fault. Poison without `match` means Match's defaults."""
        if isinstance(action, Poison) and match is None:
            match = Match()
        self._script.append(Fault(action, times, match))

    def clear(self) -> None:
        """Remove every fault and let go of the requests that hang, by resetting them."""
        self._script.clear()
        self.release()

    def release(self) -> None:
        """Let go of the requests that hang or are slow; the script stays."""
        self._released.set()
        self._released = asyncio.Event()

    async def pause(self, seconds: float | None) -> None:
        """Wait `seconds` (None: for ever), or until released."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    def take_unread(self) -> Fault | None:
        """The fault for a request whose body is not read yet, if it resets there."""
        first = self._script[0] if self._script else None
        if first and first.match is None and first.action == Reset("unread"):
            return self._use(first)
        return None

    def take(self, reading: Reading, body_bytes: int) -> Fault | None:
        """The fault for this request, None when it meets none."""
        for fault in self._script:
            if _concerns(fault, reading, body_bytes):
                return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        at = self._script.index(fault)
        if fault.times == 1:
            del self._script[at]
        elif fault.times is not None:
            self._script[at] = msgspec.structs.replace(fault, times=fault.times - 1)
        return fault


def kind_of(action: Action) -> str:
    """The action's name in a script."""
    return str(action.__struct_config__.tag)


def _concerns(fault: Fault, reading: Reading, body_bytes: int) -> bool:
    if fault.match and not any(fault.match.fits(event) for event in reading.events):
        return False
    if isinstance(fault.action, TooLarge):
        return _exceeds(body_bytes, fault.action.max_bytes) or _exceeds(
            len(reading.events), fault.action.max_events
        )
    return True


def _exceeds(size: int, limit: int | None) -> bool:
    return limit is not None and size > limit
