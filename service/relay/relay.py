"""The relay: claims what is due, sends it, settles from the answer.

Owns the loop and the `Sender` port; `outcome` judges events, `lane` judges Inngest, the store keeps
both. The invariant: every claimed batch is settled once, or left to its lease when the process
ends; nothing is claimed while the lane is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.outbox import Ask, Batch, LaneRecord, Queue, Settlement
from service.relay.lane import FRESH_SHARE, Lane, LaneState, Permit, Signal
from service.relay.outcome import Answer, Outcome, outcome

LEASE_MARGIN_SECONDS = 20.0
GATHER_SECONDS = 0.01
LANE_POLL_SECONDS = 1.0
HORIZON_MS = 24 * 3600 * 1000
_SETTLE_RETRY_SECONDS = 0.25
_FUTURE_TS_MS = 1000
_SKEW_SECONDS = 5.0
_RATE_WEIGHT = 0.3

log = structlog.get_logger(__name__)


class Sender(Protocol):
    """Where the relay sends batches."""

    async def send(self, payloads: Sequence[bytes]) -> Answer:
        """Send encoded events in one request; faults come back as an Answer."""
        ...


class Relay:
    """Moves events from `queue` to `sender` until it is stopped.

    `max_events`, `max_bytes` and `senders` bound a batch and how many are under way;
    `send_timeout_seconds` bounds one send; `drain_seconds` is what sends under way get at the stop.
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
    ) -> None:
        self._queue = queue
        self._sender = sender
        self._recorder = recorder
        self._max_bytes = max_bytes
        self._lease_seconds = send_timeout_seconds * 2 + LEASE_MARGIN_SECONDS
        self._drain_seconds = drain_seconds
        self._beat = beat
        self._lane = Lane.fresh(max_events, senders)
        self._changed = asyncio.Event()
        self._sends: dict[asyncio.Task[None], tuple[Permit, Batch]] = {}
        self._stopping = False
        self._saved: LaneRecord | None = None
        self._since_ms = int(time.time() * 1000)
        self._claimed_at = 0.0
        self._delivered = 0
        self._rate = 0.0

    @property
    def lane(self) -> Lane:
        """The lane as it stands."""
        return self._lane

    @property
    def rate(self) -> float:
        """Events delivered per second, lately."""
        return self._rate

    async def run(self) -> None:
        """Claim and send until `stop`. Cancelling leaves sends under way to their leases."""
        await self._restore()
        while not self._stopping:
            self._beat()
            wait = self._lane.wait_seconds(
                time.monotonic(), len(self._sends), self._sends_in_epoch()
            )
            if wait != 0.0:
                await self._wait_for_change(wait)
                continue
            await self._gather()
            permit = self._lane.permit(sum(b.entries[0].alone for _, b in self._sends.values()))
            batch = await self._claim(permit)
            if batch:
                self._begin(permit, batch)

    async def keep_lane(self) -> None:
        """Share the lane with the store, for restarts, other processes and people."""
        while True:
            await asyncio.sleep(LANE_POLL_SECONDS)
            self._rate += (self._delivered / LANE_POLL_SECONDS - self._rate) * _RATE_WEIGHT
            self._delivered = 0
            with contextlib.suppress(OutboxUnavailableError):
                await self._exchange_lane()

    async def stop(self) -> None:
        """Claim no more, let sends under way settle within `drain_seconds`, then cancel them.

        May come early or twice.
        """
        self._stopping = True
        self._changed.set()
        if self._sends:
            _, late = await asyncio.wait(self._sends, timeout=self._drain_seconds)
            for task in late:
                task.cancel()
            if late:
                self._recorder.count("relay_drain_overruns")
                log.warning("drain_overrun", sends=len(late))
                await asyncio.wait(late)
        with contextlib.suppress(OutboxUnavailableError):
            await self._save_lane()

    def _sends_in_epoch(self) -> int:
        return sum(permit.epoch == self._lane.epoch for permit, _ in self._sends.values())

    async def _wait_for_change(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds or LANE_POLL_SECONDS, LANE_POLL_SECONDS)):
                await self._changed.wait()
        self._changed.clear()

    async def _gather(self) -> None:
        """After a batch, give the next one a moment to fill; the first goes at once."""
        wait = self._claimed_at + GATHER_SECONDS - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _claim(self, permit: Permit) -> Batch | None:
        """A batch, or None when the lane changed before rows were due."""
        ask = Ask(
            permit.max_events, self._max_bytes, self._lease_seconds, FRESH_SHARE, permit.suspects
        )
        claim = asyncio.ensure_future(self._queue.claim(ask))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            while not claim.done():
                await asyncio.wait(
                    (claim, changed),
                    timeout=LANE_POLL_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                self._beat()
                if changed.done() and not claim.done():
                    return None
            return claim.result()
        except OutboxUnavailableError as error:
            log.warning("claim_failed", reason=str(error))
            await asyncio.sleep(_SETTLE_RETRY_SECONDS)
            return None
        finally:
            self._changed.clear()
            changed.cancel()
            claim.cancel()

    def _begin(self, permit: Permit, batch: Batch) -> None:
        full = len(batch.entries) >= permit.max_events
        self._claimed_at = 0.0 if full else time.monotonic()
        self._lane = self._lane.began(alone=batch.entries[0].alone)
        task = asyncio.create_task(self._deliver(permit, batch), name=f"send-{batch.claim}")
        self._sends[task] = (permit, batch)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sends.pop(task, None)
        if self._lane.state is not LaneState.OPEN or len(self._sends) + 1 >= self._lane.senders:
            self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            self._recorder.count("task_restarts", task="send")
            log.error("send_failed", exc_info=error)

    async def _deliver(self, permit: Permit, batch: Batch) -> None:
        self._note_horizon(batch)
        began = time.monotonic()
        answer = await self._sender.send([entry.payload for entry in batch.entries])
        seconds = time.monotonic() - began
        verdict = self._judge(permit, batch, answer)
        await self._settle(verdict.settlement)
        self._report(batch, answer, verdict, seconds)

    def _judge(self, permit: Permit, batch: Batch, answer: Answer) -> Outcome:
        first = batch.entries[0]
        lone = first.seq if len(batch.entries) == 1 else None
        suspect = lone if first.alone else None
        verdict = outcome(
            answer,
            batch,
            blame=self._lane.may_blame(suspect, permit),
            convicted=lone in self._lane.convicted,
        )
        before = self._lane
        lane = self._lane.after(
            verdict.signal,
            permit=permit,
            now=time.monotonic(),
            jitter=random.random(),  # noqa: S311
            reason=verdict.reason,
            sent=len(batch.entries),
            retry_after_seconds=answer.retry_after_seconds,
            suspect=first.seq if verdict.signal is Signal.REFUSED else suspect,
        )
        self._lane = lane if lone is None else lane.forget(lone)
        if before.state is not lane.state:
            self._since_ms = int(time.time() * 1000)
            self._changed.set()
            level = log.error if lane.state is LaneState.MISCONFIGURED else log.warning
            level("lane_changed", before=before.state, after=lane.state, reason=lane.reason)
        return verdict

    async def _settle(self, settlement: Settlement) -> None:
        """Until it is written: the answer is known, so waiting loses nothing."""
        while True:
            try:
                stale = await self._queue.settle(settlement)
                break
            except OutboxUnavailableError as error:
                log.warning("settle_failed", reason=str(error))
                await asyncio.sleep(_SETTLE_RETRY_SECONDS)
        if stale:
            self._recorder.count("lease_lost", stale)
            log.error("lease_lost", claim=settlement.claim, rows=stale)

    def _note_horizon(self, batch: Batch) -> None:
        """Count what Inngest may have forgotten, and what it will hold back."""
        now_ms = int(time.time() * 1000)
        late = [
            entry.event_id
            for entry in batch.entries
            if entry.first_sent_at_ms is not None and now_ms - entry.first_sent_at_ms > HORIZON_MS
        ]
        if late:
            self._recorder.count("sent_past_dedupe_window", len(late))
            log.warning("sent_past_dedupe_window", events=late[:20], count=len(late))
        early = sum(entry.accepted_at_ms > now_ms + _FUTURE_TS_MS for entry in batch.entries)
        if early:
            self._recorder.count("sent_with_future_ts", early)
            log.warning("sent_with_future_ts", claim=batch.claim, count=early)

    def _report(self, batch: Batch, answer: Answer, verdict: Outcome, seconds: float) -> None:
        settlement, now_ms = verdict.settlement, int(time.time() * 1000)
        self._delivered += len(settlement.delivered)
        self._recorder.count("sends", outcome=verdict.signal.value)
        self._recorder.count("delivered", len(settlement.delivered))
        self._recorder.observe("send_seconds", seconds)
        self._recorder.observe("send_events", len(batch.entries))
        for dead in settlement.dead:
            self._recorder.count("dead", reason=dead.reason)
        if settlement.delivered:
            oldest = min(entry.accepted_at_ms for entry in batch.entries)
            self._recorder.observe("delivery_latency_seconds", max(0, now_ms - oldest) / 1000)
        if answer.skew_seconds is not None:
            self._recorder.gauge("clock_skew_seconds", answer.skew_seconds)
            if abs(answer.skew_seconds) > _SKEW_SECONDS:
                log.warning("clock_skew", seconds=round(answer.skew_seconds, 1))
        log.info(
            "send",
            claim=batch.claim,
            events=len(batch.entries),
            first=batch.entries[0].event_id,
            outcome=verdict.signal.value,
            status=answer.status,
            delivered=len(settlement.delivered),
            again=len(settlement.again),
            dead=[d.seq for d in settlement.dead] or None,
            reason=verdict.reason or None,
            ms=round(seconds * 1000, 1),
        )

    async def _restore(self) -> None:
        """Take up a lane that was in trouble: paused stays paused, the rest asks with one event."""
        record = await self._queue.load_lane()
        if record is None:
            return
        self._saved = record
        if record.state != LaneState.OPEN:
            self._lane = self._lane.resumed(
                LaneState(record.state),
                reason=record.reason,
                reopens_at=time.monotonic() + record.reopens_in_seconds,
            )
            self._since_ms = record.since_ms
        self._adopt(record)

    async def _exchange_lane(self) -> None:
        record = await self._queue.load_lane()
        if record:
            self._adopt(record)
        if self._is_news(record):
            await self._save_lane()

    def _adopt(self, record: LaneRecord) -> None:
        paused = record.paused_by is not None
        if paused != self._lane.paused:
            self._lane = self._lane.with_paused(paused=paused)
            self._changed.set()

    def _is_news(self, record: LaneRecord | None) -> bool:
        lane = self._lane
        if record is None:
            return True
        moved = abs(record.rate - self._rate) > max(1.0, record.rate * 0.1)
        return (
            (record.state, record.reason, record.failures)
            != (lane.state.value, lane.reason, lane.failures)
        ) or moved

    async def _save_lane(self) -> None:
        lane = self._lane
        self._saved = await self._queue.save_lane(
            LaneRecord(
                state=lane.state.value,
                reason=lane.reason,
                window=lane.window,
                failures=lane.failures,
                reopens_in_seconds=max(0.0, lane.reopens_at - time.monotonic()),
                since_ms=self._since_ms,
                rate=round(self._rate, 1),
            )
        )
