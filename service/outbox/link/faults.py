"""Errors of the store as messages, and back. A ValueError is the caller's own mistake."""

from __future__ import annotations

import structlog

from service.errors import OutboxError, OutboxUnavailableError, RefusedError, ServiceError
from service.outbox.link.messages import Fault

_MISTAKE = ValueError.__name__


def _kinds(of: type[ServiceError]) -> dict[str, type[ServiceError]]:
    """`of` and the classes below it by their names."""
    found = {of.__name__: of}
    for kind in of.__subclasses__():
        found |= _kinds(kind)
    return found


_KINDS = _kinds(OutboxError) | _kinds(RefusedError)

log = structlog.get_logger(__name__)


def to_fault(number: int, error: BaseException) -> Fault:
    """The message for an error. One that is not the store's own is logged here."""
    kind = type(error).__name__
    if isinstance(error, ValueError):
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
