"""The breaker of this process, and its record in the store.

The record is for restarts, people and other processes. When another process is in trouble, a
process without recent answers probes with one event before it sends more. When another one
recovers, a waiting process probes at once. The record never overrides this process's own answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import FAILING, DeliveryRecord
from inngest_outbox.outbox.ports import Delivery
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.sends import BreakerState

POLL_SECONDS = 1.0
_RATE_WEIGHT = 0.3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """The destination of this process's events, and their confirmation, if any."""

    destination: str = ""
    confirmation: str = ""

    def with_fault(self, fault: str | None) -> Announcement:
        """The announcement while Inngest can't be asked for the reason `fault`."""
        return replace(self, confirmation=f"{FAILING} ({fault})") if fault else self


class BreakerSync:
    """Holds the breaker. `changed` is called when sends may have to start or wait."""

    def __init__(
        self,
        delivery: Delivery,
        breaker: Breaker,
        changed: Callable[[], None],
        announcement: Announcement | None = None,
    ) -> None:
        self._usual = announcement or Announcement()
        self._announcement = self._usual
        self._delivery = delivery
        self._changed = changed
        self._since_ms = wall_now_ms()
        self._restored = False
        self._delivered = 0
        self._answered = 0
        self._seen = 0
        self._told: tuple[tuple[str, str, int], float] | None = None
        self._announced: Announcement | None = None
        self.breaker = breaker
        self.rate = 0.0

    async def restore(self) -> None:
        """Restore a breaker that was in trouble, once: it probes with one event.

        A pause stays. A refused configuration may have been repaired, so it is tried at once.
        """
        if self._restored:
            return
        record = await self._delivery.load()
        self._restored = True
        state = BreakerState(record.state)
        if state is not BreakerState.HEALTHY:
            # The wall clock may have been set since, so a long wait may be wrong.
            wait = min(record.reopens_in_seconds, self.breaker.policy.max_backoff)
            reopens_at = _now() + (0.0 if state is BreakerState.MISCONFIGURED else wait)
            self.breaker = self.breaker.resumed(state, reason=record.reason, reopens_at=reopens_at)
            self._since_ms = record.since_ms
        self._seen = record.revision
        self._pause(record)

    async def keep(self) -> None:
        """Exchange the breaker with the store until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            with contextlib.suppress(OutboxUnavailableError):
                await self._exchange()
            self.rate += (self._delivered / POLL_SECONDS - self.rate) * _RATE_WEIGHT
            self._delivered = 0
            self._answered = 0

    def move(self, breaker: Breaker) -> None:
        """Replace the breaker; a change of its state is logged."""
        before, self.breaker = self.breaker, breaker
        if before.narrow != breaker.narrow:
            self._changed()
        if before.state is breaker.state:
            return
        self._since_ms = wall_now_ms()
        self._changed()
        level = log.error if breaker.state is BreakerState.MISCONFIGURED else log.warning
        level(
            "breaker_changed",
            before=before.state,
            after=breaker.state,
            reason=breaker.reason or None,
        )

    def answered(self, count: int) -> None:
        """Count events that Inngest took."""
        self._answered += count

    def delivered(self, count: int) -> None:
        """Count delivered events for the rate."""
        self._delivered += count

    def tell_confirmation(self, fault: str | None) -> None:
        """Announce why confirmation fails, None when it does not. The next exchange saves it."""
        self._announcement = self._usual.with_fault(fault)

    async def save(self) -> None:
        """Write the record. Raises OutboxUnavailableError."""
        breaker = self.breaker
        told, announced = (_told(breaker), self.rate), self._announcement
        saved = await self._delivery.save(
            DeliveryRecord(
                state=breaker.state.value,
                reason=breaker.reason,
                window=breaker.limit.events,
                failures=breaker.failures,
                reopens_in_seconds=max(0.0, breaker.reopens_at - _now()),
                since_ms=self._since_ms,
                rate=round(self.rate, 1),
                destination=announced.destination,
                confirmation=announced.confirmation,
            )
        )
        self._told, self._announced = told, announced
        if saved.revision == self._seen + 1:
            self._seen = saved.revision

    async def _exchange(self) -> None:
        record = await self._delivery.load()
        self._pause(record)
        if record.revision > self._seen:
            self._seen = record.revision
            self._heed(record)
        if self._is_news(record):
            await self.save()

    def _pause(self, record: DeliveryRecord) -> None:
        paused = record.paused_by is not None
        if paused != self.breaker.paused:
            self.breaker = self.breaker.with_pause(paused=paused)
            self._changed()

    def _heed(self, record: DeliveryRecord) -> None:
        """Apply the changes of another process or an operator since the last look."""
        now = _now()
        state = BreakerState(record.state)
        # Another process delivers, or an operator asked for it: probe now.
        ask = not state.waits or not record.reopens_in_seconds
        if state.waits and self.breaker.state is BreakerState.HEALTHY and not self._answered:
            wait = min(record.reopens_in_seconds, self.breaker.policy.max_retry_after)
            self.move(self.breaker.resumed(state, reason=record.reason, reopens_at=now + wait))
            self._told = _told(self.breaker), self.rate
        elif ask and self.breaker.state.waits and self.breaker.reopens_at > now:
            self.breaker = self.breaker.asking_at(now)
            self._changed()

    def _is_news(self, record: DeliveryRecord) -> bool:
        """True when the breaker or the announcement differs from the saved one."""
        if self._announcement != (self._announced or _announced(record)):
            return True
        state, rate = self._told or ((record.state, record.reason, record.failures), record.rate)
        return _told(self.breaker) != state or abs(rate - self.rate) > max(1.0, rate * 0.1)


def _announced(record: DeliveryRecord) -> Announcement:
    return Announcement(record.destination, record.confirmation)


def _told(breaker: Breaker) -> tuple[str, str, int]:
    return breaker.state.value, breaker.reason, breaker.failures


def _now() -> float:
    return asyncio.get_running_loop().time()
