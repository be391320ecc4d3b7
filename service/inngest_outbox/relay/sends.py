"""Permits to send, and the requests in flight with the senders that they use.

There are two pools of senders of the same size. Requests with isolated events, or with events that
failed before, use their own pool. So an event that hangs blocks no other. Each epoch has its own
pools, so that requests that hang since before the trouble do not block the probes.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from inngest_outbox.inngest.send_result import Signal
from inngest_outbox.outbox.model import Isolated


class BreakerState(enum.StrEnum):
    """The state of Inngest, as the breaker knows it."""

    HEALTHY = "healthy"
    RECOVERING = "recovering"
    BACKING_OFF = "backing_off"
    MISCONFIGURED = "misconfigured"

    @property
    def waits(self) -> bool:
        """True when only probes are sent."""
        return self in (BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED)


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send one batch of at most `max_events` and `max_bytes`, given in `epoch`.

    `fresh_share` of it are the newest events. With `singly` each event is a request of its own.
    """

    max_events: int
    max_bytes: int
    isolated: Isolated
    fresh_share: float
    epoch: int
    state: BreakerState
    singly: bool = False


@dataclass(frozen=True, slots=True)
class InFlight:
    """The number of requests in flight or about to be.

    `isolated` counts those of isolated events and of parts that failed before, `others` the rest.
    The `_now` figures count those of the current epoch.
    """

    isolated: int = 0
    others: int = 0
    isolated_now: int = 0
    others_now: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one request, as the breaker sees it.

    `began_at` is when it was sent, `size` its bytes. `lone` is the seq of an event that was sent
    alone; `known_isolated` is true if it was isolated before. `again` says that the request is a
    part of one that failed, `hung` that no answer came in time. `newly_refused` is an event that
    was refused for the first time. `drained` says that the batch had room for more. `seqs` are the
    events, where they matter.
    """

    signal: Signal
    began_at: float
    size: int = 1
    reason: str = ""
    retry_after_seconds: float | None = None
    lone: int | None = None
    known_isolated: bool = False
    again: bool = False
    newly_refused: int | None = None
    drained: bool = False
    hung: bool = False
    seqs: frozenset[int] = frozenset()

    @property
    def failed_before(self) -> bool:
        """True when these events failed before."""
        return self.known_isolated or self.again


@dataclass(frozen=True, slots=True)
class BreakerView:
    """The breaker's view of the events of one answered request.

    `resend`: others pass, so failed parts are sent again at once. `refusing`: every event is
    refused, so no refusal counts. `confirmed_bad`: the event was the cause of its last failure.
    `refusals` counts its earlier refusals. `bad_events`: some were confirmed bad lately.
    `narrow`: events go alone, since some hang.
    `passed_size` is the largest request that passes, in bytes, 0 when none is known.
    """

    resend: bool = True
    refusing: bool = False
    confirmed_bad: bool = False
    refusals: int = 0
    bad_events: bool = False
    narrow: bool = False
    passed_size: int = 0


@dataclass(eq=False, slots=True)
class Ticket:
    """A request with so many `events` that is in flight or about to be; `epoch` is its permit's.

    One that goes `singly` waits for no sender: its claim has counted those that are free.
    """

    epoch: int
    isolated: bool
    events: int
    singly: bool = False
    began_at: float | None = None


class SendsInFlight:
    """Hands out senders. `freed` is called when one ended or left: true for an isolated one."""

    def __init__(self, senders: int, freed: Callable[[bool], None]) -> None:
        self._senders = senders
        # A pool is there while a request waits for one of its senders or holds one.
        self._pools = WeakValueDictionary[tuple[int, bool], asyncio.Semaphore]()
        self._freed = freed
        self._sends: set[Ticket] = set()

    def count(self, epoch: int) -> InFlight:
        """The number of requests in flight or waiting for a sender; `epoch` is the current one."""
        found: Counter[tuple[bool, bool]] = Counter()
        for send in self._sends:
            # A claim whose events go singly is about to be as many requests.
            found[send.isolated, send.epoch == epoch] += send.events if send.singly else 1
        return InFlight(
            isolated=found[True, True] + found[True, False],
            others=found[False, True] + found[False, False],
            isolated_now=found[True, True],
            others_now=found[False, True],
        )

    def longest_seconds(self, now: float) -> float:
        """The age of the oldest request in flight, in seconds."""
        began = [send.began_at for send in self._sends if send.began_at is not None]
        return now - min(began, default=now)

    @property
    def events(self) -> int:
        """The number of events in flight or about to be."""
        return sum(send.events for send in self._sends)

    def enter(self, epoch: int, *, isolated: bool, events: int, singly: bool = False) -> Ticket:
        """Count a request from now on, until `sender` or `leave` ends it."""
        ticket = Ticket(epoch, isolated, events, singly)
        self._sends.add(ticket)
        return ticket

    def leave(self, ticket: Ticket, *, replaced: bool) -> None:
        """Stop counting it: other requests have `replaced` it, or it is not sent."""
        self._sends.discard(ticket)
        if not replaced:
            self._freed(ticket.isolated)

    @contextlib.asynccontextmanager
    async def sender(self, ticket: Ticket) -> AsyncIterator[None]:
        """Wait for a sender and hold it."""
        key = ticket.epoch, ticket.isolated
        pool = self._pools.setdefault(key, asyncio.Semaphore(self._senders))
        alone = ticket.singly and not ticket.isolated
        try:
            async with contextlib.nullcontext() if alone else pool:
                ticket.began_at = asyncio.get_running_loop().time()
                yield
        finally:
            self._sends.discard(ticket)
            self._freed(ticket.isolated)
