"""The relay: claims what is due, sends it, settles from the answer.

Owns the loop and the `Sender` port. `outcome` judges events, `breaker` judges Inngest, the store
keeps both. The invariant: every claimed batch is settled once, or left to its lease when the
process ends. Nothing is claimed while the breaker waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.clock import wall_now_ms
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, ClaimRequest, Retry, Settlement
from service.outbox.ports import Queue
from service.relay.breaker import Breaker, BreakerState, InFlight, Permit
from service.relay.breaker_sync import POLL_SECONDS, BreakerSync
from service.relay.dedupe_horizon import DedupeHorizon
from service.relay.outcome import Answer, BreakerView, Outcome, outcome
from service.relay.report import Report
from service.relay.seeded import seeded_requests
from service.relay.unconfirmed import Unconfirmed
from service.supervisor import end

LEASE_MARGIN_SECONDS = 20.0
GATHER_SECONDS = 0.01
_RETRY_SECONDS = 0.25

log = structlog.get_logger(__name__)


class Sender(Protocol):
    """Where the relay sends batches."""

    async def send(self, payloads: bytes, seed: str | None) -> Answer:
        """Send encoded events, joined by commas, in one request under the seed of their ids.

        Faults come back as an Answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Send:
    permit: Permit
    batch: Batch
    began_at: float


class Relay:
    """Moves events from `queue` to `sender` until it is stopped.

    `max_events`, `max_bytes` and `senders` bound a batch and how many are under way;
    `send_timeout_seconds` bounds one send; `drain_seconds` is what sends under way get at the stop.
    `beat` is called at least every second while the relay is at work and no send is overdue.
    With `ids` Inngest gives each event the ULID of its row; None leaves the choice to Inngest. With
    `unconfirmed` an answered row is settled as sent and its room is bounded; None settles it as
    delivered. `horizon` is asked about rows that left long ago; None sends them.
    """

    def __init__(
        self,
        queue: Queue,
        sender: Sender,
        recorder: Recorder,
        *,
        max_events: int,
        max_bytes: int,
        senders: int,
        send_timeout_seconds: float,
        drain_seconds: float,
        beat: Callable[[], None] = lambda: None,
        around_send: Callable[[Batch], AbstractContextManager[object]] = contextlib.nullcontext,
        ids: InngestIds | None = None,
        unconfirmed: Unconfirmed | None = None,
        horizon: DedupeHorizon | None = None,
    ) -> None:
        self._queue = queue
        self._sender = sender
        self._around_send = around_send
        self._report = Report(recorder)
        # A send may try two event keys.
        self._lease_seconds = send_timeout_seconds * 2 + LEASE_MARGIN_SECONDS
        self._drain_seconds = drain_seconds
        self._beat = beat
        self._changed = asyncio.Event()
        self._claiming: asyncio.Timeout | None = None
        self._keeper = BreakerSync(
            queue, Breaker.fresh(max_events, max_bytes, senders), self._change
        )
        self._sends: dict[asyncio.Task[None], _Send] = {}
        self._stopping = False
        self._claimed_at = 0.0
        self._ids = ids
        self._horizon = horizon
        self._unconfirmed = unconfirmed
        if unconfirmed is not None:
            unconfirmed.on_room = self._changed.set

    @property
    def breaker(self) -> Breaker:
        """The breaker as it stands."""
        return self._keeper.breaker

    @property
    def rate(self) -> float:
        """Events delivered per second, lately."""
        return self._keeper.rate

    async def run(self) -> None:
        """Claim and send until `stop`. Cancelling leaves sends under way at work.

        May be run again after it ended: sends under way are known to the next run.
        """
        await self._keeper.restore()
        while not self._stopping:
            self._beat_if_well()
            await self._gather()
            wait = self.breaker.wait_seconds(_now(), self._under_way())
            if wait == 0.0 and self._room() == 0:
                wait = None
            if wait != 0.0:
                await self._wait_for_change(wait)
                continue
            permit = self.breaker.permit(self._under_way())
            batch = await self._claim(permit)
            if batch:
                self._begin(permit, batch)

    def confirmed(self, count: int) -> None:
        """So many events more are held by Inngest; the rate of delivery counts them."""
        self._keeper.delivered(count)

    async def sync_breaker(self) -> None:
        """Share the breaker with the store, for restarts, other processes and people."""
        await self._keeper.keep()

    async def stop(self) -> None:
        """Claim no more, let sends under way settle within `drain_seconds`, then cancel them.

        May come early or twice. A send that is cancelled leaves its rows to their lease.
        """
        self._stopping = True
        self._change()
        if self._sends:
            _, late = await asyncio.wait(self._sends, timeout=self._drain_seconds)
            if late:
                self._report.overrun(len(late))
                await asyncio.gather(*map(end, late))
        with contextlib.suppress(OutboxUnavailableError):
            await self._keeper.save()

    def _beat_if_well(self) -> None:
        """A send that outlives its lease is stuck where nothing here can see it."""
        oldest = min((send.began_at for send in self._sends.values()), default=_now())
        if _now() - oldest <= self._lease_seconds:
            self._beat()

    def _beat_on(self) -> None:
        """Beat now and until `_beats` is cancelled."""
        self._beat_if_well()
        self._beats = asyncio.get_running_loop().call_later(POLL_SECONDS, self._beat_on)

    def _under_way(self) -> InFlight:
        sends = [(_is_alone(send.batch), send.permit.epoch) for send in self._sends.values()]
        epoch = self.breaker.epoch
        return InFlight(
            isolated=sum(isolated for isolated, _ in sends),
            others=sum(not isolated for isolated, _ in sends),
            isolated_now=sum(isolated and begun == epoch for isolated, begun in sends),
            others_now=sum(not isolated and begun == epoch for isolated, begun in sends),
        )

    def _change(self) -> None:
        """Something that was waited for, or that a claim was asked under, is otherwise."""
        self._changed.set()
        if self._claiming and not self._claiming.expired():
            self._claiming.reschedule(_now())

    async def _wait_for_change(self, seconds: float | None) -> None:
        wait = POLL_SECONDS if seconds is None else min(seconds, POLL_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._changed.wait()
        self._changed.clear()

    async def _gather(self) -> None:
        """After a batch, give the next one a moment to fill; the first goes at once."""
        wait = self._claimed_at + GATHER_SECONDS - _now()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _claim(self, permit: Permit) -> Batch | None:
        """A batch, or None when the breaker changed before rows were due."""
        ask = ClaimRequest(
            min(permit.max_events, self._room()),
            permit.max_bytes,
            self._lease_seconds,
            1.0 if self._only_fresh() else permit.fresh_share,
            permit.isolated,
        )
        self._changed.clear()
        self._beat_on()
        scope = self._claiming = asyncio.timeout(None)
        try:
            async with scope:
                return await self._queue.claim(ask)
        except TimeoutError:
            if not scope.expired():
                raise
            return None
        except OutboxUnavailableError as error:
            log.warning("claim_failed", reason=str(error))
        finally:
            self._claiming = None
            self._beats.cancel()
        await asyncio.sleep(_RETRY_SECONDS)
        return None

    def _begin(self, permit: Permit, batch: Batch) -> None:
        full = len(batch.entries) >= permit.max_events
        self._claimed_at = 0.0 if full else _now()
        self._keeper.breaker = self.breaker.began(isolated=_is_alone(batch))
        task = asyncio.create_task(self._deliver(permit, batch), name=f"send-{batch.claim}")
        self._sends[task] = _Send(permit, batch, _now())
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        batch = self._sends.pop(task).batch
        others = self._under_way().others
        breaker = self.breaker
        # A claim that waits was allowed what was allowed then: no more suspects, say.
        if (
            breaker.state is not BreakerState.HEALTHY
            or _is_alone(batch)
            or others + 1 >= breaker.senders
        ):
            self._change()
        if not task.cancelled() and (error := task.exception()):
            self._report.failed(error)

    def _room(self) -> int:
        """How many events may be sent before Inngest holds more of those it has answered."""
        if self._unconfirmed is None:
            return sys.maxsize
        return self._unconfirmed.room(self._events_in_flight())

    def _only_fresh(self) -> bool:
        """Whether what room is left is kept for fresh events."""
        if self._unconfirmed is None:
            return False
        return self._unconfirmed.only_fresh(self._events_in_flight())

    def _events_in_flight(self) -> int:
        return sum(len(send.batch.entries) for send in self._sends.values())

    async def _deliver(self, permit: Permit, batch: Batch) -> None:
        wanted = await self._without_held(batch)
        for part, seed in self._requests(wanted) if wanted else ():
            if self.breaker.holds(permit):
                await self._deliver_part(permit, part, seed)
            else:
                await self._put_back(part)

    async def _without_held(self, batch: Batch) -> Batch | None:
        """What is left to send, None for nothing; what Inngest got long ago is settled."""
        if self._horizon is None:
            return batch
        checked = await self._horizon.check(batch, wall_now_ms())
        if checked.settlement is not None:
            await self._settle(checked.settlement)
        return checked.send

    def _requests(self, batch: Batch) -> list[tuple[Batch, str | None]]:
        if self._ids is None:
            return [(batch, None)]
        return [(one.batch, one.seed) for one in seeded_requests(batch, self._ids)]

    async def _deliver_part(self, permit: Permit, batch: Batch, seed: str | None) -> None:
        self._report.begins(batch)
        began = _now()
        answer = await self._send(batch, seed)
        seconds = _now() - began
        verdict = self._judge(permit, batch, answer)
        taken = len(verdict.settlement.delivered)
        if self._unconfirmed is not None:
            verdict = replace(verdict, settlement=_as_sent(verdict.settlement))
        await self._settle(verdict.settlement)
        self._keeper.answered(taken)
        if self._unconfirmed is None:
            self._keeper.delivered(taken)
        else:
            self._unconfirmed.sent(taken)
        self._report.ended(batch, answer, verdict, seconds)

    async def _send(self, batch: Batch, seed: str | None) -> Answer:
        try:
            with self._around_send(batch):
                return await self._sender.send(batch.payloads, seed)
        except Exception as error:  # noqa: BLE001  (a fault of ours must not hold the rows back)
            self._report.failed(error)
            return Answer(None, words=f"the sender failed: {type(error).__name__}", reached=False)

    def _judge(self, permit: Permit, batch: Batch, answer: Answer) -> Outcome:
        breaker = self.breaker
        first = batch.entries[0]
        lone = first.seq if len(batch.entries) == 1 else None
        known = BreakerView(
            convicted=lone in breaker.convicted,
            refusing=breaker.refusing,
            recovering=permit.state is BreakerState.RECOVERING,
        )
        verdict = outcome(answer, batch, known)
        breaker = breaker.after(
            verdict.signal,
            permit=permit,
            now=_now(),
            jitter=random.random(),  # noqa: S311
            reason=verdict.reason,
            sent_bytes=len(batch.payloads),
            drained=_drained(permit, batch),
            retry_after_seconds=answer.retry_after_seconds,
            suspect=lone if first.isolated else None,
            newly_refused=None if first.isolated else first.seq,
        )
        self._keeper.move(breaker if lone is None else breaker.forget(lone))
        return verdict

    async def _put_back(self, batch: Batch) -> None:
        """The breaker changed in the moment of the claim: nothing was sent."""
        retry = [Retry(entry.seq, 0.0, entry.attempts, entry.isolated) for entry in batch.entries]
        await self._settle(Settlement(batch.claim, retry=retry))

    async def _settle(self, settlement: Settlement) -> None:
        """Until it is written: the answer is known, so waiting loses nothing."""
        while True:
            try:
                stale = await self._queue.settle(settlement)
                break
            except OutboxUnavailableError as error:
                log.warning("settle_failed", reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
        if stale:
            self._report.lease_lost(settlement.claim, stale)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _as_sent(settlement: Settlement) -> Settlement:
    """The same, but what Inngest took waits for its confirmation."""
    return msgspec.structs.replace(settlement, delivered=(), sent=settlement.delivered)


def _drained(permit: Permit, batch: Batch) -> bool:
    """Whether nothing more was due: the batch had room for more."""
    room = len(batch.entries) < permit.max_events and len(batch.payloads) < permit.max_bytes / 2
    return room and not _is_alone(batch)


def _is_alone(batch: Batch) -> bool:
    return batch.entries[0].isolated
