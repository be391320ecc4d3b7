"""What front processes and the store process say to each other.

Fronts send calls. The store sends one result or fault for each, and its status when it changes. A
store that stops says `Closing`; each front answers `Goodbye` after its last call, so that the store
knows that it has every call that was sent.
"""

from __future__ import annotations

import msgspec


class Call(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """A method of a port with its encoded arguments. `number` is new on its connection."""

    number: int
    method: str
    arguments: msgspec.Raw


class Result(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """The encoded result of a call."""

    number: int
    value: msgspec.Raw


class Fault(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A call raised a ServiceError of the class `kind`."""

    number: int
    kind: str
    message: str
    retry_after_seconds: int | None


class Status(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """How the store is. `failure` is why events can't be stored, None while they can.

    `faults` are the sentences of its part of /readyz, `detail` its figures. The settings' revision
    grows when any process saves a scope.
    """

    failure: str | None
    undelivered: int
    settings_revision: int
    faults: tuple[str, ...] = ()
    detail: dict[str, object] = {}


class Closing(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """The store wants no more calls here; another one may take its place."""


class Goodbye(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """The front sends no more calls here."""


ToStore = Call | Goodbye
ToFront = Result | Fault | Status | Closing
