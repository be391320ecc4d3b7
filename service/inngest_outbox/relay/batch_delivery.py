"""One claimed batch from its claim to its settlement.

When a request fails while others pass, it is sent again at once in smaller and smaller parts, until
the event that causes the failure is alone. Rows whose payloads can't be divided are claimed again
one by one. The invariant: every row of the batch is settled once, or left to its lease when the
process ends. No request begins that could outlive the lease.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import msgspec

from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon
from inngest_outbox.inngest.delivery_request import (
    DeliveryRequest,
    SeedCheck,
    UndividableError,
    parts_of,
    requests_again,
    requests_of,
    rows_of,
    with_ids,
)
from inngest_outbox.inngest.send_result import SendResult, Signal, classify
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import Batch
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_result import view, with_result
from inngest_outbox.relay.breaker_sync import BreakerSync
from inngest_outbox.relay.empty_request import EmptyRequest, LoneFailure, Sender
from inngest_outbox.relay.outcome import Outcome, RetryPolicy, outcome
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.sends import Answered, Permit, SendsInFlight, Ticket
from inngest_outbox.relay.settler import Settler

_FULL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Claimed:
    """The common facts of the requests of one claim. No request begins after `send_until`."""

    permit: Permit
    isolated: bool
    drained: bool
    send_until: float


class BatchDelivery:
    """Delivers claimed batches. `stopping` is true when nothing may be sent again."""

    def __init__(
        self,
        sender: Sender,
        *,
        empty_request: EmptyRequest,
        lone_failure: LoneFailure,
        sync: BreakerSync,
        sends: SendsInFlight,
        settler: Settler,
        report: Report,
        policy: RetryPolicy,
        ids: InngestIds | None,
        horizon: DedupeHorizon | None,
        around_send: Callable[[Batch], AbstractContextManager[object]],
        stopping: Callable[[], bool],
    ) -> None:
        self._sender = sender
        self._empty_request = empty_request
        self._lone_failure = lone_failure
        self._sync = sync
        self._sends = sends
        self._settler = settler
        self._report = report
        self._policy = policy
        self._ids = ids
        self._seed_check = SeedCheck(ids)
        self._horizon = horizon
        self._around_send = around_send
        self._stopping = stopping

    def deliver(
        self, permit: Permit, batch: Batch, *, send_until: float
    ) -> Coroutine[None, None, None]:
        """Send the batch, and again the parts that fail, until all rows are settled.

        Its requests count as in flight from the moment of the call.
        """
        isolated = batch.entries[0].isolated
        claimed = _Claimed(permit, isolated, _is_drained(permit, batch), send_until)
        events = len(batch.entries)
        ticket = self._sends.enter(
            permit.epoch, isolated=isolated, events=events, singly=permit.singly
        )
        return self._deliver(claimed, batch, ticket)

    async def _deliver(self, claimed: _Claimed, batch: Batch, ticket: Ticket) -> None:
        wanted, requests = batch, list[DeliveryRequest]()
        try:
            if left := await self._without_held(batch):
                wanted = left
                requests = self._requests(claimed.permit, with_ids(left, self._ids))
        except UndividableError:
            await self._settler.put_back(wanted, isolated=True)
        finally:
            self._sends.leave(ticket, replaced=bool(requests))
        if requests and self._sync.breaker.is_current(claimed.permit):
            self._report.begins(wanted)
        await self._send_all(claimed, requests)

    def _requests(self, permit: Permit, batch: Batch) -> list[DeliveryRequest]:
        """The requests that deliver the batch. Raises UndividableError."""
        parts = [batch]
        if permit.singly and len(batch.entries) > 1:
            parts = parts_of(batch, [[at] for at in range(len(batch.entries))])
        return [request for part in parts for request in requests_of(part, self._ids)]

    async def _without_held(self, batch: Batch) -> Batch | None:
        """The rows to send, None for none; settles the rows that Inngest got long ago."""
        if self._horizon is None:
            return batch
        checked = await self._horizon.check(batch, wall_now_ms())
        if checked.settlement is not None:
            await self._settler.settle(checked.settlement)
        return checked.send

    def _send_all(
        self, claimed: _Claimed, requests: Sequence[DeliveryRequest]
    ) -> Coroutine[None, None, None]:
        epoch = claimed.permit.epoch
        sends = []
        for request in requests:
            isolated = claimed.isolated or request.again
            events = len(request.batch.entries)
            ticket = self._sends.enter(
                epoch, isolated=isolated, events=events, singly=claimed.permit.singly
            )
            sends.append(self._send(claimed, request, ticket))
        return sends[0] if len(sends) == 1 else _all(sends)

    async def _send(self, claimed: _Claimed, request: DeliveryRequest, ticket: Ticket) -> None:
        async with self._sends.sender(ticket):
            if self._settler.is_full(request.environment):
                await self._settler.put_back(request.batch, delay_seconds=_FULL_SECONDS)
                return
            if not self._sync.breaker.is_current(claimed.permit):
                await self._settler.put_back(request.batch)
                return
            stops = request.again and self._stopping()
            if stops or _now() > claimed.send_until:
                isolated = request.again and not stops
                await self._settler.put_back(request.batch, isolated=isolated)
                return
            began_at = _now()
            result = await self._answer(request)
            seconds = _now() - began_at
            done = self._judge(claimed, request, result, began_at)
            answered = self._seed_check.answered(request.batch, result)
            settled = await self._settler.settle_answer(
                msgspec.structs.replace(done.settlement, answered=tuple(answered)),
                request.environment,
                can_confirm=not answered,
            )
        written = replace(done, settlement=settled)
        self._report.ended(request.batch, result, written, seconds)
        if done.again:
            await self._send_again(claimed, request, done)

    async def _send_again(self, claimed: _Claimed, request: DeliveryRequest, done: Outcome) -> None:
        again = request.again or done.failed
        try:
            requests = requests_again(request, done.again, self._ids, again=again)
        except UndividableError:
            await self._settler.put_back(rows_of(request.batch, done.again), isolated=True)
        else:
            await self._send_all(claimed, requests)

    async def _answer(self, request: DeliveryRequest) -> SendResult:
        try:
            with self._around_send(request.batch):
                return await self._sender.send(request.batch.payloads, request.headers)
        except Exception as error:  # noqa: BLE001  (our own fault must not hold the rows back)
            self._report.failed(error)
            words = f"the sender failed: {type(error).__name__}"
            return SendResult(None, words=words, reached=False)

    def _judge(
        self, claimed: _Claimed, request: DeliveryRequest, result: SendResult, began_at: float
    ) -> Outcome:
        """The outcome of the events; updates the breaker first."""
        before, now = self._sync.breaker, _now()
        answered = _answered(claimed, request, result, began_at)
        after = with_result(
            before,
            answered,
            permit=claimed.permit,
            now=now,
            jitter=random.random(),  # noqa: S311
        )
        known = view(after, before, claimed.permit, answered.lone, now)
        chance = not (request.repeated or known.bad_events)
        parts = self._policy.parts(now - began_at, chance=chance)
        done = outcome(result, request.batch, known, self._policy, parts=parts)
        self._sync.move(_without_settled(after, done))
        if after.wants_witness(now):
            self._empty_request.witness()
        self._lone_failure.answered(request.batch, answered.signal)
        if answered.signal is Signal.TOO_LARGE and answered.lone is not None:
            self._ask_size(answered.lone, answered.size)
        return done

    def _ask_size(self, seq: int, size: int) -> None:
        if size > self._sync.breaker.limit.passed_size:
            self._empty_request.too_large(seq)


async def _all(sends: Sequence[Coroutine[None, None, None]]) -> None:
    await asyncio.gather(*sends)


def _answered(
    claimed: _Claimed, request: DeliveryRequest, result: SendResult, began_at: float
) -> Answered:
    entries = request.batch.entries
    signal = classify(result, len(entries))
    lone = entries[0].seq if len(entries) == 1 else None
    failed = signal is not Signal.PASSED
    return Answered(
        signal,
        began_at,
        size=len(request.batch.payloads),
        reason=result.reason,
        retry_after_seconds=result.retry_after_seconds,
        lone=lone,
        known_isolated=claimed.isolated,
        again=request.again,
        newly_refused=None if claimed.isolated else entries[0].seq,
        drained=claimed.drained,
        hung=result.hung,
        seqs=frozenset(entry.seq for entry in entries) if failed else frozenset(),
    )


def _without_settled(breaker: Breaker, done: Outcome) -> Breaker:
    for dead in done.settlement.dead:
        breaker = breaker.forget(dead.seq)
    return breaker


def _is_drained(permit: Permit, batch: Batch) -> bool:
    """True when no more rows were due: the batch had room for more."""
    room = len(batch.entries) < permit.max_events and len(batch.payloads) < permit.max_bytes / 2
    return room and not batch.entries[0].isolated


def _now() -> float:
    return asyncio.get_running_loop().time()
