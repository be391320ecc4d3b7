"""The arrivals at the fake Inngest: every event that it answered with an id.

The invariant: the kept bodies are bounded, the oldest go first; an id is never forgotten, at about
100 bytes each. Requests that are only counted leave neither.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from inngest_outbox.dev.fake_inngest.events import WireEvent

_MAX_BODIES = 10_000
_MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_REQUESTS = 10_000
_PATIENCE_SECONDS = 60.0


class MovableClock:
    """Wall time that can be told to move. `source` gives the time in seconds."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._moved_seconds = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self._source() + self._moved_seconds

    @property
    def now_ms(self) -> int:
        """The time in milliseconds."""
        return int(self() * 1000)

    def move(self, seconds: float) -> None:
        """Move by `seconds`; negative ones move back."""
        self._moved_seconds += seconds


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An accepted event: under the caller's `id`, or the server's where none was given.

    `ts` is the receive time where none was given; `event` is the JSON as received, without
    the data key `_inngest`.
    """

    id: str
    server_id: str
    name: str
    ts: int
    received_at_ms: int
    event: bytes


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request that was read: how much it brought, and which fault it met, if any.

    `events` counts the good ones that were read, `accepted` those that were stored.
    """

    key: str
    body_bytes: int
    events: int
    accepted: int
    fault: str | None


class Stats(msgspec.Struct, frozen=True, gc=False):
    """The ledger in figures."""

    requests: int
    arrivals: int
    ids: int


class Ledger:
    """Everything that arrived.

    `max_bodies` and `max_body_bytes` bound the kept events. `clock` is in seconds.
    """

    def __init__(
        self,
        *,
        max_bodies: int = _MAX_BODIES,
        max_body_bytes: int = _MAX_BODY_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bodies = max_bodies
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self.clear()

    def clear(self) -> None:
        """Forget everything. Waiters keep waiting."""
        self.arrivals = 0
        self.request_count = 0
        self.requests: deque[Request] = deque(maxlen=_MAX_REQUESTS)
        self._kept: deque[Arrival] = deque()
        self._kept_bytes = 0
        self._times: dict[str, int] = {}

    @property
    def ids(self) -> Iterator[str]:
        """Every id that arrived, in the order of first arrival."""
        return iter(self._times)

    @property
    def stats(self) -> Stats:
        """The figures now."""
        return Stats(self.request_count, self.arrivals, len(self._times))

    def times(self, event_id: str) -> int:
        """The number of arrivals of this id."""
        return self._times.get(event_id, 0)

    def kept(self, *, event_id: str | None = None, limit: int | None = None) -> list[Arrival]:
        """The latest kept arrivals, oldest first: of one id, at most `limit`."""
        found = [entry for entry in self._kept if event_id in (None, entry.id)]
        return found if limit is None else found[max(len(found) - limit, 0) :]

    def now_ms(self) -> int:
        """The receive time."""
        return int(self._clock() * 1000)

    def accept(self, events: Sequence[WireEvent], server_ids: Sequence[str]) -> list[Arrival]:
        """Note `events` under the ids that the server gave them; returns them as arrivals."""
        now_ms = self.now_ms()
        arrivals = [
            Arrival(
                event.id or server_id, server_id, event.name, event.ts or now_ms, now_ms, event.raw
            )
            for event, server_id in zip(events, server_ids, strict=True)
        ]
        for arrival in arrivals:
            self._times[arrival.id] = self._times.get(arrival.id, 0) + 1
        self._kept.extend(arrivals)
        self._kept_bytes += sum(len(arrival.event) for arrival in arrivals)
        self.arrivals += len(arrivals)
        self._forget_bodies()
        return arrivals

    def record(self, request: Request) -> None:
        """Note a request, after its events, and wake the waiters that it satisfies."""
        self.request_count += 1
        self.requests.append(request)
        self._wake()

    def count_only(self, arrivals: int) -> None:
        """Count a request with so many events of which nothing is kept."""
        self.arrivals += arrivals
        self.request_count += 1
        self._wake()

    async def wait_until(
        self, reached: Callable[[], bool], *, timeout_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        """Wait until `reached` is true; it is looked at after each request.

        Raises TimeoutError, saying what had arrived.
        """
        if reached():
            return
        waiting = (reached, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await asyncio.wait_for(waiting[1], timeout_seconds)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_seconds:g} s; so far: {self.stats}") from None
        finally:
            self._waiting.remove(waiting)

    async def wait_for_id(
        self, event_id: str, *, timeout_seconds: float = _PATIENCE_SECONDS
    ) -> Arrival | None:
        """Wait until this id arrived; its latest arrival, None when its body is not kept."""
        await self.wait_until(lambda: event_id in self._times, timeout_seconds=timeout_seconds)
        return next(iter(self.kept(event_id=event_id, limit=1)), None)

    async def wait_for_arrivals(
        self, count: int, *, timeout_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        """Wait until `count` events arrived, repeats included."""
        await self.wait_until(lambda: self.arrivals >= count, timeout_seconds=timeout_seconds)

    async def wait_for_ids(self, count: int, *, timeout_seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until `count` different ids arrived."""
        await self.wait_until(lambda: len(self._times) >= count, timeout_seconds=timeout_seconds)

    async def wait_for_requests(
        self, count: int, *, timeout_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        """Wait until `count` requests came, whatever they were answered."""
        await self.wait_until(lambda: self.request_count >= count, timeout_seconds=timeout_seconds)

    def _wake(self) -> None:
        for reached, future in self._waiting:
            if not future.done() and reached():
                future.set_result(None)

    def _forget_bodies(self) -> None:
        while len(self._kept) > self._max_bodies or self._kept_bytes > self._max_body_bytes:
            self._kept_bytes -= len(self._kept.popleft().event)
