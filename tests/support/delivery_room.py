"""A BatchDelivery alone: the store, Inngest and the shared breaker are a few lines each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon, HorizonCheck
from inngest_outbox.inngest.send_result import SendResult, Signal
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import Batch, Entry, Settlement
from inngest_outbox.outbox.ports import Queue
from inngest_outbox.relay.batch_delivery import BatchDelivery
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_sync import BreakerSync
from inngest_outbox.relay.empty_request import EmptyRequest, LoneFailure
from inngest_outbox.relay.outcome import Outcome, RetryPolicy
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.sends import SendsInFlight
from inngest_outbox.relay.settler import Settler
from inngest_outbox.relay.unconfirmed import Unconfirmed
from tests.support.breakers import fresh, passed
from tests.support.virtual_time import now

FAILED = SendResult(500, (), "it broke")
PASSING = passed(fresh(), size=1000)


def taken(seqs: list[int]) -> SendResult:
    """Inngest takes them all."""
    return SendResult(200, tuple(f"id-{seq}" for seq in seqs))


def batch(*seqs: int, isolated: bool = False, size: int = 0, attempts: int = 0) -> Batch:
    """A batch whose payloads are its seqs, as text of so many characters together."""
    entries = tuple(
        Entry(seq, f"e-{seq}", 0, "u", attempts=attempts, isolated=isolated) for seq in seqs
    )
    payloads = b",".join(b'"%d"' % seq for seq in seqs)
    return Batch("c", entries, payloads + b" " * (size - len(payloads)))


@dataclass
class Sent:
    """One request: which events, when, whether in the pool of those that failed before."""

    seqs: list[int]
    at: float
    apart: bool
    in_flight: int
    headers: Mapping[str, str]


@dataclass
class Heard:
    """What the others were told."""

    begun: list[Batch] = field(default_factory=list)
    ended: list[tuple[Batch, SendResult, Outcome, float]] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    lone: list[tuple[Batch, Signal]] = field(default_factory=list)
    too_large: list[int] = field(default_factory=list)
    around: list[Batch] = field(default_factory=list)


class Room:
    """`answer` says what Inngest answers to events, after `seconds`; it may raise."""

    def __init__(
        self,
        breaker: Breaker = PASSING,
        *,
        ids: InngestIds | None = None,
        unconfirmed: Unconfirmed | None = None,
        checked: HorizonCheck | None = None,
    ) -> None:
        self.breaker = breaker
        self.answer: Callable[[list[int]], SendResult] = taken
        self.seconds = 0.125
        self.stopping = False
        self.sent: list[Sent] = []
        self.settled: list[Settlement] = []
        self.heard = Heard()
        self.sends = SendsInFlight(4, lambda _: None)
        self._inside = False
        self._checked = checked
        self.delivery = BatchDelivery(
            self,
            empty_request=cast("EmptyRequest", self),
            lone_failure=cast("LoneFailure", self),
            sync=cast("BreakerSync", self),
            sends=self.sends,
            settler=Settler(
                cast("Queue", self), cast("BreakerSync", self), cast("Report", self), unconfirmed
            ),
            report=cast("Report", self),
            policy=RetryPolicy(),
            ids=ids,
            horizon=cast("DedupeHorizon", self) if checked else None,
            around_send=self._around,
            stopping=lambda: self.stopping,
        )

    async def deliver(self, rows: Batch, *, send_until: float = 1e9) -> None:
        """Deliver under a permit of the breaker as it stands."""
        permit = self.breaker.permit(self.sends.count(self.breaker.epoch))
        await self.delivery.deliver(permit, rows, send_until=send_until)

    @property
    def order(self) -> list[list[int]]:
        """Which events were sent together, in order."""
        return [one.seqs for one in self.sent]

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        assert self._inside
        seqs = [int(one.strip(b' "')) for one in payloads.split(b",")]
        flight = self.sends.count(self.breaker.epoch)
        apart = bool(flight.isolated)
        one = Sent(seqs, now(), apart, flight.isolated + flight.others, headers)
        self.sent.append(one)
        await asyncio.sleep(self.seconds)
        return self.answer(seqs)

    async def settle(self, settlement: Settlement) -> int:
        self.settled.append(settlement)
        return 0

    async def check(self, rows: Batch, now_ms: int) -> HorizonCheck:
        assert now_ms > 1_600_000_000_000
        assert rows.entries
        assert self._checked is not None
        return self._checked

    def move(self, breaker: Breaker) -> None:
        self.breaker = breaker

    def answered(self, *what: object) -> None:
        """Both the count of answers and the watch on lone failures."""
        if len(what) > 1:
            self.heard.lone.append(cast("tuple[Batch, Signal]", what))

    def delivered(self, count: int) -> None:
        del count

    def too_large(self, seq: int) -> None:
        self.heard.too_large.append(seq)

    def begins(self, rows: Batch) -> None:
        self.heard.begun.append(rows)

    def ended(self, rows: Batch, result: SendResult, done: Outcome, seconds: float) -> None:
        self.heard.ended.append((rows, result, done, seconds))

    def failed(self, error: BaseException) -> None:
        self.heard.failed.append(error)

    @contextlib.contextmanager
    def _around(self, rows: Batch) -> Iterator[None]:
        self.heard.around.append(rows)
        self._inside = True
        yield
