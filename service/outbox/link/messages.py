"""What front processes and the store process say to each other.

Fronts send calls, and single events many in a message. The store sends one result, receipt or fault
for each, and its status when it changes. A store that stops says `Closing`; each front answers
`Goodbye` after its last call, so that the store knows that it has every call that was sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.config.inngest_address import InngestAddress
from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey
from service.outbox.receipt import Receipt

REASON_KEY = "reason"  # in a status: words of Inngest's, which may quote an event


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
    grows when any process saves a scope. `inngest` is where Inngest is.
    """

    failure: str | None
    undelivered: int
    settings_revision: int
    faults: tuple[str, ...] = ()
    detail: dict[str, object] = {}
    inngest: InngestAddress | None = None


class Closing(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """The store wants no more calls here; another one may take its place."""


class Goodbye(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """The front sends no more calls here."""


class NewEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event to append. `number` is new on its connection, as that of a call."""

    number: int
    event: Event
    key: IdempotencyKey | None


class Appends(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    """Events of several requests. Each is stored, or refused, by itself."""

    events: Sequence[NewEvent]


class Receipts(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    """Events that are stored: the number of each with its receipt."""

    receipts: Sequence[tuple[int, Receipt]]


ToStore = Call | Appends | Goodbye
ToFront = Result | Receipts | Fault | Status | Closing
