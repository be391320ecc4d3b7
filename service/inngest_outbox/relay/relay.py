"""The relay: claims what is due, sends it, settles from the answer.

It puts its parts together: `claim_loop` claims, `batch_delivery` sends and settles, `outcome`
judges events, `breaker_result` judges Inngest, `breaker_sync` shares the breaker with the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import Batch
from inngest_outbox.outbox.ports import Delivery, Queue
from inngest_outbox.relay.batch_delivery import BatchDelivery
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_policy import BreakerPolicy
from inngest_outbox.relay.breaker_sync import Announcement, BreakerSync
from inngest_outbox.relay.claim_loop import ClaimLoop
from inngest_outbox.relay.empty_request import EmptyRequest, LoneFailure, Sender
from inngest_outbox.relay.outcome import RetryPolicy
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.sends import BreakerState, Permit, SendsInFlight
from inngest_outbox.relay.settler import Settler
from inngest_outbox.relay.unconfirmed import Unconfirmed
from inngest_outbox.supervisor import end


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The bounds of what a relay sends at once, and of its waits.

    `max_events` and `max_bytes` bound a batch, `senders` the requests in flight.
    `send_timeout_seconds` bounds one request; `drain_seconds` is the time for requests in flight at
    the stop.
    """

    max_events: int
    max_bytes: int
    senders: int
    send_timeout_seconds: float
    drain_seconds: float


LEASE_MARGIN_SECONDS = 20.0


class Relay:
    """Moves events from `queue` to `sender` until it is stopped; shares its breaker by `delivery`.

    `beat` is called at least every second while the relay runs and no request is overdue. `ids`
    gives Inngest's ids of the rows; None leaves them to Inngest. With `unconfirmed`, rows that
    Inngest took become sent instead of delivered, and its limit is kept. `horizon` checks rows
    whose ids Inngest may have forgotten.
    """

    def __init__(
        self,
        queue: Queue,
        delivery: Delivery,
        sender: Sender,
        recorder: Recorder,
        limits: RelayLimits,
        *,
        ids: InngestIds | None = None,
        unconfirmed: Unconfirmed | None = None,
        horizon: DedupeHorizon | None = None,
        retry_policy: RetryPolicy | None = None,
        breaker_policy: BreakerPolicy | None = None,
        announcement: Announcement | None = None,
        beat: Callable[[], None] = lambda: None,
        around_send: Callable[[Batch], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._limits, self._beat, self._stopping = limits, beat, False
        self.confirmation_fault: str | None = None
        self._deliveries: set[asyncio.Task[None]] = set()
        self._report = report = Report(recorder)
        breaker = Breaker.fresh(limits.max_events, limits.max_bytes, limits.senders, breaker_policy)
        self._sync = sync = BreakerSync(delivery, breaker, self._wake, announcement)
        self._sends = SendsInFlight(limits.senders, self._sender_freed)
        self._empty_request = EmptyRequest(sender, sync)
        self._delivery = BatchDelivery(
            sender,
            empty_request=self._empty_request,
            lone_failure=LoneFailure(self._empty_request, report),
            sync=sync,
            sends=self._sends,
            settler=Settler(queue, sync, report, unconfirmed),
            report=report,
            policy=retry_policy or RetryPolicy(),
            ids=ids,
            horizon=horizon,
            around_send=around_send,
            stopping=lambda: self._stopping,
        )
        self._claims = self._claim_loop(queue, unconfirmed)

    @property
    def breaker(self) -> Breaker:
        """The breaker as it stands."""
        return self._sync.breaker

    @property
    def _lease_seconds(self) -> float:
        # One request may try two event keys.
        return self._limits.send_timeout_seconds * 2 + LEASE_MARGIN_SECONDS

    async def run(self) -> None:
        """Claim and send until `stop`. Cancelling leaves requests in flight running.

        May be run again after it ended: the next run knows the requests in flight.
        """
        await self._sync.restore()
        while not self._stopping:
            await self._claims.turn()

    def confirmed(self, count: int) -> None:
        """Count events that Inngest holds for the rate of delivery."""
        self._sync.delivered(count)

    def tell_confirmation(self, fault: str | None) -> None:
        """Announce why Inngest can't be asked about sent events, None when it can."""
        self.confirmation_fault = fault
        self._sync.tell_confirmation(fault)

    async def sync_breaker(self) -> None:
        """Share the breaker with the store, for restarts, other processes and people."""
        await self._sync.keep()

    async def stop(self) -> None:
        """Claim no more, let requests in flight settle within `drain_seconds`, then cancel them.

        May come early or twice. A request that is cancelled leaves its rows to their lease.
        """
        self._stopping = True
        self._wake()
        await self._empty_request.stop()
        if self._deliveries:
            _, late = await asyncio.wait(self._deliveries, timeout=self._limits.drain_seconds)
            if late:
                self._report.overrun(len(late))
                await asyncio.gather(*map(end, late))
        with contextlib.suppress(OutboxUnavailableError):
            await self._sync.save()

    def _claim_loop(self, queue: Queue, unconfirmed: Unconfirmed | None) -> ClaimLoop:
        return ClaimLoop(
            queue,
            self._sync,
            self._sends,
            unconfirmed,
            lease_seconds=self._lease_seconds,
            begin=self._begin,
            nothing_due=self._empty_request.nothing_due,
            beat=self._beat_if_well,
        )

    def _wake(self) -> None:
        self._claims.wake()

    def _beat_if_well(self) -> None:
        """Beat unless a request has outlived its lease: then it is stuck."""
        now = asyncio.get_running_loop().time()
        if self._sends.longest_seconds(now) <= self._lease_seconds:
            self._beat()

    def _begin(self, permit: Permit, batch: Batch) -> None:
        isolated = batch.entries[0].isolated
        self._sync.breaker = self.breaker.began(isolated=isolated)
        send_until = asyncio.get_running_loop().time() + LEASE_MARGIN_SECONDS
        task = asyncio.create_task(
            self._delivery.deliver(permit, batch, send_until=send_until),
            name=f"send-{batch.claim}",
        )
        self._deliveries.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._report.failed(error)

    def _sender_freed(self, isolated: bool) -> None:  # noqa: FBT001  (a call-back)
        """Make a waiting claim again, under a permit that counts the free sender."""
        breaker = self.breaker
        others = self._sends.count(breaker.epoch).others
        healthy = breaker.state is BreakerState.HEALTHY
        if isolated or not healthy or others + 1 >= breaker.width:
            self._wake()
