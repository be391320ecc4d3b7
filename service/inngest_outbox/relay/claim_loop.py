"""Claims due rows as the breaker allows, and starts their delivery.

A claim is made under the current breaker. When the breaker changes, a waiting claim is aborted and
made again. Nothing is claimed while the breaker waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Callable

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Batch, ClaimRequest
from inngest_outbox.outbox.ports import Queue
from inngest_outbox.relay.breaker_sync import POLL_SECONDS, BreakerSync
from inngest_outbox.relay.sends import BreakerState, Permit, SendsInFlight
from inngest_outbox.relay.settler import RETRY_SECONDS
from inngest_outbox.relay.unconfirmed import Unconfirmed

GATHER_SECONDS = 0.01
_LONG_AGO = -math.inf

log = structlog.get_logger(__name__)


class ClaimLoop:
    """Claims from `queue` under leases of `lease_seconds`.

    `begin` starts a batch's delivery. `nothing_due` is called when a claim has found nothing for
    the time that the breaker allows. `beat` is called at least every second.
    """

    def __init__(
        self,
        queue: Queue,
        sync: BreakerSync,
        sends: SendsInFlight,
        unconfirmed: Unconfirmed | None,
        *,
        lease_seconds: float,
        begin: Callable[[Permit, Batch], None],
        nothing_due: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._sync = sync
        self._sends = sends
        self._unconfirmed = unconfirmed
        self._lease_seconds = lease_seconds
        self._begin = begin
        self._nothing_due = nothing_due
        self._beat = beat
        self._changed = asyncio.Event()
        self._claiming: asyncio.Timeout | None = None
        self._claimed_at = _LONG_AGO
        if unconfirmed is not None:
            unconfirmed.on_room = self._changed.set

    def wake(self) -> None:
        """Wake the loop and abort a waiting claim: the state it was made under has changed."""
        self._changed.set()
        if self._claiming and not self._claiming.expired():
            self._claiming.reschedule(_now())

    async def turn(self) -> None:
        """Wait for a permit, claim once, and start the delivery."""
        self._beat()
        await self._gather()
        breaker = self._sync.breaker
        sends = self._sends.count(breaker.epoch)
        wait = breaker.wait_seconds(_now(), sends) if self._room() else None
        if wait != 0.0:
            await self._wait_for_change(wait)
            return
        permit = breaker.permit(sends)
        batch = await self._claim(permit)
        if batch:
            full = len(batch.entries) >= permit.max_events
            self._claimed_at = _LONG_AGO if full else _now()
            self._begin(permit, batch)

    async def _wait_for_change(self, seconds: float | None) -> None:
        wait = POLL_SECONDS if seconds is None else min(seconds, POLL_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._changed.wait()
        self._changed.clear()

    async def _gather(self) -> None:
        """After a batch, give the next one a moment to fill. The first is claimed at once."""
        wait = self._claimed_at + GATHER_SECONDS - _now()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _claim(self, permit: Permit) -> Batch | None:
        """A batch, or None when the breaker changed before rows were due."""
        request = ClaimRequest(
            min(permit.max_events, self._room()),
            permit.max_bytes,
            self._lease_seconds,
            1.0 if self._only_fresh() else permit.fresh_share,
            permit.isolated,
        )
        self._changed.clear()
        self._beat_on()
        idle_seconds = self._idle_seconds(permit)
        scope = self._claiming = asyncio.timeout(idle_seconds)
        try:
            async with scope:
                return await self._queue.claim(request)
        except TimeoutError:
            if not scope.expired():
                raise
            if not self._changed.is_set():
                self._nothing_due()
            return None
        except OutboxUnavailableError as error:
            log.warning("claim_failed", reason=str(error))
        finally:
            self._claiming = None
            self._beats.cancel()
        await asyncio.sleep(RETRY_SECONDS)
        return None

    def _room(self) -> int:
        """The number of events that may be sent before more of the answered ones are confirmed."""
        if self._unconfirmed is None:
            return sys.maxsize
        return self._unconfirmed.room(self._sends.events)

    def _only_fresh(self) -> bool:
        """True when the remaining room is reserved for fresh events."""
        return self._unconfirmed is not None and self._unconfirmed.only_fresh(self._sends.events)

    def _idle_seconds(self, permit: Permit) -> float | None:
        """The seconds that a claim may find nothing before `nothing_due`; None: for ever."""
        policy = self._sync.breaker.policy
        if permit.state is BreakerState.HEALTHY:
            return None
        return policy.ask_idle if permit.state.waits else policy.idle

    def _beat_on(self) -> None:
        """Beat now and until `_beats` is cancelled."""
        self._beat()
        self._beats = asyncio.get_running_loop().call_later(POLL_SECONDS, self._beat_on)


def _now() -> float:
    return asyncio.get_running_loop().time()
