"""Metrics and log lines of confirmations. Events are named by their ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from service.observe.recorder import Recorder
from service.outbox.clock import wall_now_ms
from service.outbox.sent_entry import SentEntry
from service.relay.confirmation import ResendReason

_SHOWN = 20
_LOG_EVERY_SECONDS = 60.0
_RATE_SECONDS = 1.0
_RATE_WEIGHT = 0.3

log = structlog.get_logger(__name__)


class StoringRate:
    """How many events Inngest stores per second, lately. `now` is in seconds."""

    def __init__(self, now: float) -> None:
        self.per_second = 0.0
        self._since = now
        self._found = 0

    def count(self, found: int, now: float) -> None:
        """Count `found` more held events; the rate changes at most once a second."""
        self._found += found
        seconds = now - self._since
        if seconds >= _RATE_SECONDS:
            self.per_second += (self._found / seconds - self.per_second) * _RATE_WEIGHT
            self._since, self._found = now, 0


class ConfirmationReport:
    """Reports confirmations to `recorder` and to the log.

    `on_confirmed` gets the number of confirmed rows. `wall_ms` is the wall clock, `clock` one that
    does not jump, in seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        on_confirmed: Callable[[int], None] = lambda _: None,
        *,
        wall_ms: Callable[[], int] = wall_now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._on_confirmed = on_confirmed
        self._wall_ms = wall_ms
        self._clock = clock
        self._failure_logged_at = float("-inf")
        self._rate = StoringRate(clock())

    def confirmed(self, held: Sequence[SentEntry]) -> None:
        """Count rows that Inngest holds."""
        now_ms = self._wall_ms()
        self._on_confirmed(len(held))
        self._recorder.count("delivered", len(held))
        oldest = max(held, key=lambda entry: entry.sent_seconds)
        self._recorder.observe("confirm_latency_seconds", oldest.sent_seconds)
        accepted_at_ms = min(entry.accepted_at_ms for entry in held)
        age_ms = max(0, now_ms - accepted_at_ms)
        self._recorder.observe("delivery_latency_seconds", age_ms / 1000)

    def resent(self, reason: ResendReason, entries: Sequence[SentEntry]) -> None:
        """Count and log rows that are sent again."""
        self._recorder.count("resent", len(entries), reason=reason.value)
        shown = [entry.event_id for entry in entries[:_SHOWN]]
        log.warning("resent", reason=reason.value, count=len(entries), events=shown)

    def swept(self, found: int, unconfirmed: int) -> None:
        """Note that Inngest answered every question of a sweep."""
        self._recorder.gauge("confirmations_ok", 1.0)
        self._failure_logged_at = float("-inf")
        self._rate.count(found, self._clock())
        self._recorder.gauge("inngest_stored_per_second", self._rate.per_second)
        if found:
            log.debug("confirmed", events=found, unconfirmed=unconfirmed)

    def others_ask(self) -> None:
        """Note that another process asks Inngest."""
        self._recorder.gauge("confirmations_ok", 1.0)
        self._recorder.gauge("inngest_stored_per_second", 0.0)

    def failed(self, reason: str) -> None:
        """Note that Inngest could not be asked."""
        self._recorder.gauge("confirmations_ok", 0.0)
        now = self._clock()
        if now - self._failure_logged_at > _LOG_EVERY_SECONDS:
            self._failure_logged_at = now
            log.warning("confirmations_failing", reason=reason)
