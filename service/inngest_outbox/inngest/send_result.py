"""The result of one request, and what it says about Inngest. Pure.

No value may contain a URL, because the event key is part of it.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

MAX_WORDS = 500
TIMEOUT = "timeout"

_CONFIGURATION_STATUSES = frozenset({401, 403, 404, 405})
_BUSY_STATUSES = frozenset({408, 425, 429})
_REDIRECTS = range(300, 400)
_OK = 200
_BAD_REQUEST = 400
_TOO_LARGE = 413
_UNAVAILABLE = 503


class Signal(enum.StrEnum):
    """The meaning of one answer for Inngest.

    `PASSED`: at least one event was taken. `REFUSED`: it refused the first event and took none.
    `BUSY`: it asks for time. `UNREACHED`: no connection could be made.
    """

    PASSED = "passed"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    TROUBLE = "trouble"
    BUSY = "busy"
    UNREACHED = "unreached"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class SendResult:
    """The answer to one request, or its fault.

    `status` is None when there was no HTTP answer. `ids` is None when the body was not the API's.
    `reached` is false when no connection could be made. `words` is the server's error or the
    fault's name. `skew_seconds` is how far this machine's clock is ahead of the server's.
    """

    status: int | None
    ids: tuple[str, ...] | None = None
    words: str = ""
    retry_after_seconds: float | None = None
    skew_seconds: float | None = None
    reached: bool = True

    @property
    def hung(self) -> bool:
        """True when the request was sent and got no answer in time."""
        return self.status is None and self.reached and self.words == TIMEOUT

    @property
    def reason(self) -> str:
        """The result in a few words.

        >>> SendResult(503, words="try later").reason
        '503 try later'
        """
        status = "" if self.status is None else f"{self.status} "
        return f"{status}{self.words[:MAX_WORDS]}".strip()


def classify(result: SendResult, sent: int) -> Signal:
    """The meaning for Inngest of the answer to a request with `sent` events."""
    status = result.status
    if status is None:
        return Signal.TROUBLE if result.reached else Signal.UNREACHED
    if status == _OK and result.ids is not None:
        return Signal.PASSED if any(result.ids[:sent]) else Signal.TROUBLE
    if status == _BAD_REQUEST and result.ids is not None:
        return Signal.PASSED if count_taken(result.ids, sent) else Signal.REFUSED
    if status == _TOO_LARGE:
        return Signal.TOO_LARGE
    keyless = status == _UNAVAILABLE and "event key" in result.words.lower()
    if status in _CONFIGURATION_STATUSES or status in _REDIRECTS or keyless:
        return Signal.MISCONFIGURED
    busy = status in _BUSY_STATUSES or result.retry_after_seconds is not None
    return Signal.BUSY if busy else Signal.TROUBLE


def judged_an_event(result: SendResult, sent: int) -> bool:
    """True when Inngest refused one event of the request and took those before it."""
    ids = result.ids
    return result.status == _BAD_REQUEST and ids is not None and count_taken(ids, sent) < sent


def may_be_the_events_own(result: SendResult) -> bool:
    """True when an event may be the cause of a failure.

    It is not when no connection was made, or when Inngest says 200 and gives no id.
    """
    return result.reached and not (result.status == _OK and result.ids is not None)


def count_taken(ids: Sequence[str], sent: int) -> int:
    """The number of leading events that were taken.

    >>> count_taken(("01J", "01K", ""), sent=5)
    2
    """
    return sum(1 for _ in itertools.takewhile(bool, ids[:sent]))
