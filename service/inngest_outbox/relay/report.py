"""Metrics and log lines of sends and confirmations.

The invariant: nothing of a payload is logged; events are named by their ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import structlog

from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event_ids import is_forgotten
from inngest_outbox.outbox.model import Batch, SentEntry
from inngest_outbox.relay.confirmation import ResendReason
from inngest_outbox.relay.outcome import Outcome

_FUTURE_TS_MS = 1000
_SKEW_SECONDS = 5.0
_SKEW_LOG_SECONDS = 60.0
_SHOWN = 20
_LOG_EVERY_SECONDS = 60.0
_RATE_SECONDS = 1.0
_RATE_WEIGHT = 0.3

log = structlog.get_logger(__name__)


class Report:
    """Reports requests to `recorder` and to the log.

    `wall_ms` is the wall clock, `clock` one that does not jump, in seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        wall_ms: Callable[[], int] = wall_now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._wall_ms = wall_ms
        self._clock = clock
        self._skew_logged_at = -math.inf

    def begins(self, batch: Batch) -> None:
        """Count events whose ids Inngest may have forgotten, and events that it will run later.

        Inngest drops repeats of an id for 24 h, and runs an event no earlier than its ts.
        """
        now_ms = self._wall_ms()
        late = [
            entry.event_id
            for entry in batch.entries
            if is_forgotten(entry.first_sent_at_ms, now_ms)
        ]
        if late:
            self._recorder.count("sent_past_dedupe_window", len(late))
            log.warning("sent_past_dedupe_window", events=late[:_SHOWN], count=len(late))
        early = sum(entry.accepted_at_ms > now_ms + _FUTURE_TS_MS for entry in batch.entries)
        if early:
            self._recorder.count("sent_with_future_ts", early)
            log.warning("sent_with_future_ts", claim=batch.claim, count=early)

    def ended(self, batch: Batch, result: SendResult, done: Outcome, seconds: float) -> None:
        """A request was answered, and its settlement is written."""
        settlement = done.settlement
        self._recorder.count("sends", outcome=done.signal.value)
        self._recorder.count("delivered", len(settlement.delivered))
        self._recorder.observe("send_seconds", seconds)
        self._recorder.observe("send_events", len(batch.entries))
        if settlement.delivered:
            oldest = min(entry.accepted_at_ms for entry in batch.entries)
            age_ms = max(0, self._wall_ms() - oldest)
            self._recorder.observe("delivery_latency_seconds", age_ms / 1000)
        self._note_skew(result.skew_seconds)
        self._note_dead(batch, done)
        log.info(
            "send",
            claim=batch.claim,
            events=len(batch.entries),
            first=batch.entries[0].event_id,
            outcome=done.signal.value,
            status=result.status,
            delivered=len(settlement.delivered),
            sent=len(settlement.sent),
            retry=len(settlement.retry),
            dead=len(settlement.dead) or None,
            reason=done.reason or None,
            ms=round(seconds * 1000, 1),
        )

    def lease_lost(self, claim: str, rows: int) -> None:
        """Count rows whose answer came after the lease: they belong to another claim by now."""
        self._recorder.count("lease_lost", rows)
        log.error("lease_lost", claim=claim, rows=rows)

    def lone_event_fails(self, event_id: str | None) -> None:
        """Note that one event fails again and again while Inngest answers; None: no longer."""
        self._recorder.gauge("lone_event_fails", float(event_id is not None))
        if event_id is not None:
            log.error("lone_event_fails", event_id=event_id)

    def failed(self, error: BaseException) -> None:
        """Log a send that failed by a bug of this service."""
        self._recorder.count("task_restarts", task="send")
        log.error("send_failed", exc_info=error)

    def overrun(self, sends: int) -> None:
        """Count sends that a stop had to cancel."""
        self._recorder.count("relay_drain_overruns")
        log.warning("drain_overrun", sends=sends)

    def _note_dead(self, batch: Batch, done: Outcome) -> None:
        if not done.settlement.dead:
            return
        ids = {entry.seq: entry.event_id for entry in batch.entries}
        for dead in done.settlement.dead:
            self._recorder.count("dead", reason=dead.reason)
            log.error(
                "dead",
                event_id=ids[dead.seq],
                reason=dead.reason,
                detail=dead.detail,
                attempts=dead.attempts,
            )

    def _note_skew(self, skew_seconds: float | None) -> None:
        if skew_seconds is None:
            return
        self._recorder.gauge("clock_skew_seconds", skew_seconds)
        now = self._clock()
        if abs(skew_seconds) > _SKEW_SECONDS and now - self._skew_logged_at > _SKEW_LOG_SECONDS:
            self._skew_logged_at = now
            log.warning("clock_skew", seconds=round(skew_seconds, 1))


class StoringRate:
    """The events that Inngest stores per second, lately. `now` is in seconds."""

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

    `on_confirmed` gets the number of confirmed rows, `on_fault` why Inngest can't be asked, None
    when it can. `wall_ms` is the wall clock, `clock` one that
    does not jump, in seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        on_confirmed: Callable[[int], None] = lambda _: None,
        *,
        on_fault: Callable[[str | None], None] = lambda _: None,
        wall_ms: Callable[[], int] = wall_now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._on_confirmed = on_confirmed
        self._on_fault = on_fault
        self._wall_ms = wall_ms
        self._clock = clock
        self._failure_logged_at = -math.inf
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

    def swept(self, found: int, unconfirmed: int, fault: str | None) -> None:
        """Note the end of a sweep; `fault` is why Inngest can't be asked about all rows."""
        self._rate.count(found, self._clock())
        self._recorder.gauge("inngest_stored_per_second", self._rate.per_second)
        self._tell(fault)
        if found:
            log.debug("confirmed", events=found, unconfirmed=unconfirmed)

    def others_ask(self) -> None:
        """Note that another process asks Inngest."""
        self._recorder.gauge("inngest_stored_per_second", 0.0)
        self._tell(None)

    def _tell(self, fault: str | None) -> None:
        self._recorder.gauge("confirmations_ok", float(fault is None))
        self._on_fault(fault)
        now = self._clock()
        if fault is None:
            self._failure_logged_at = -math.inf
        elif now - self._failure_logged_at > _LOG_EVERY_SECONDS:
            self._failure_logged_at = now
            log.warning("confirmations_failing", reason=fault)
