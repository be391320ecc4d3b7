"""The requests in flight, and the senders that they use.

There are two pools of the same size. Requests with isolated events, or with events that failed
before, use their own pool. So an event that hangs blocks no other. Each epoch has its own pools, so
that requests that hang since before the trouble do not block the probes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from service.relay.permit import InFlight


@dataclass(eq=False, slots=True)
class Ticket:
    """A request with so many `events` that is in flight or about to be; `epoch` is its permit's."""

    epoch: int
    isolated: bool
    events: int
    began_at: float | None = None


class SendsInFlight:
    """Hands out senders. `freed` is called with the pool's name when a request ended or left."""

    def __init__(self, senders: int, freed: Callable[[bool], None]) -> None:
        self._senders = senders
        # A pool is there while a request waits for one of its senders or holds one.
        self._pools = WeakValueDictionary[tuple[int, bool], asyncio.Semaphore]()
        self._freed = freed
        self._sends: set[Ticket] = set()

    def count(self, epoch: int) -> InFlight:
        """How many requests are in flight or wait for a sender; `epoch` is the current one."""
        isolated = [send.epoch for send in self._sends if send.isolated]
        others = [send.epoch for send in self._sends if not send.isolated]
        return InFlight(len(isolated), len(others), isolated.count(epoch), others.count(epoch))

    def longest_seconds(self, now: float) -> float:
        """How long the oldest request has been in flight."""
        began = [send.began_at for send in self._sends if send.began_at is not None]
        return now - min(began, default=now)

    @property
    def events(self) -> int:
        """How many events are in flight or about to be."""
        return sum(send.events for send in self._sends)

    def enter(self, epoch: int, *, isolated: bool, events: int) -> Ticket:
        """Count a request from now on, until `sender` or `leave` ends it."""
        ticket = Ticket(epoch, isolated, events)
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
        try:
            async with pool:
                ticket.began_at = asyncio.get_running_loop().time()
                yield
        finally:
            self._sends.discard(ticket)
            self._freed(ticket.isolated)
