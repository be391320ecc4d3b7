"""The messages of the link, by which processes call the one that owns an outbox.

Its callers are the front processes and the `outbox` commands. The first message is `Hello`. Then
callers send calls, and fronts single events many in a message. The owner sends one result, receipt
or fault for each, and its status when it changes. An owner that stops says `Closing`; each caller
answers `Goodbye` after its last call, so that the owner knows that it has every call that was sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from inngest_outbox.config.values import InngestAddress
from inngest_outbox.errors import OutboxError, OutboxUnavailableError, RefusedError, ServiceError
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt

PROTOCOL = 1
REASON_KEY = "reason"  # in a status: words of Inngest's, which may quote an event
_MISTAKE = ValueError.__name__

log = structlog.get_logger(__name__)


class Call(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """A method of a port with its encoded arguments. `number` is new on its connection, from 1."""

    number: int
    method: str
    arguments: msgspec.Raw


class Result(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """The encoded result of a call."""

    number: int
    value: msgspec.Raw


class Fault(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A call raised a ServiceError of the class `kind`. Number 0 refuses the connection."""

    number: int
    kind: str
    message: str
    retry_after_seconds: int | None


class Status(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """The state of the owner. `failure` is why events can't be stored, None while they can.

    `faults` are the sentences of its part of /readyz, `detail` its figures. `scope_revision`
    grows when any process saves a scope. `inngest` is Inngest's address. `ids` None are not known.
    """

    failure: str | None = None
    scope_revision: int = 0
    faults: tuple[str, ...] = ()
    detail: dict[str, object] = {}
    inngest: InngestAddress | None = None
    ids: InngestIds | None = None


class Closing(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """The owner wants no more calls here; another one may take its place."""


class Goodbye(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """The caller sends no more calls here."""


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


class Hello(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=8):
    """The version of this protocol that the caller speaks. Its form never changes."""

    protocol: int


ToOwner = Hello | Call | Appends | Goodbye
ToCaller = Result | Receipts | Fault | Status | Closing


def _kinds(of: type[ServiceError]) -> dict[str, type[ServiceError]]:
    """`of` and the classes below it by their names."""
    found = {of.__name__: of}
    for kind in of.__subclasses__():
        found |= _kinds(kind)
    return found


_KINDS = _kinds(OutboxError) | _kinds(RefusedError)


def to_fault(number: int, error: BaseException) -> Fault:
    """The message for an error. One that is not the store's own is logged here."""
    kind = type(error).__name__
    if isinstance(error, ValueError):  # the caller's own mistake
        return Fault(number, _MISTAKE, str(error), None)
    if kind not in _KINDS:
        log.error("call_failed", exc_info=error)
        return Fault(number, OutboxUnavailableError.__name__, "", None)
    return Fault(number, kind, str(error), getattr(error, "retry_after_seconds", None))


def from_fault(fault: Fault) -> ServiceError | ValueError:
    """The error that a message stands for."""
    if fault.kind == _MISTAKE:
        return ValueError(fault.message)
    kind = _KINDS.get(fault.kind, OutboxUnavailableError)
    message = fault.message or None
    if fault.retry_after_seconds is None:
        return kind(message)
    if issubclass(kind, RefusedError):
        return kind(message, retry_after_seconds=fault.retry_after_seconds)
    return OutboxUnavailableError(message, retry_after_seconds=fault.retry_after_seconds)
