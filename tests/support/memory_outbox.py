"""The in-memory store. The simulations use it, and the contract suite holds it to its ports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from inngest_outbox.outbox.event import Event, check_call
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.keys import IdempotencyKey, KeyUse, Receipt, divide
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Named, Row, State
from tests.support.memory_queue import MemoryConfirmations, MemoryQueue
from tests.support.memory_rows import IDS, MemoryRow, MemoryRows

HEALTHY_DELIVERY = DeliveryRecord("healthy", "", 1, 0, 0.0, 0)


class MemoryIntake:
    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        return (await self.append_all((event,), (key,)))[0]

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        if not events:
            return ()
        check_call(events, keys)
        found = divide(
            events,
            keys,
            uses={(row.event.owner, row.key.key): _use(row) for row in self._keyed()},
            ids=IDS,
            next_seq=self._rows.next_seq,
            now_ms=int(self._rows.now() * 1000),
        )
        for seq in found.expired:
            self._rows.by_seq[seq].key = None
        for at in found.new:
            self._rows.append(events[at], keys[at])
        return found.receipts

    def _keyed(self) -> list[MemoryRow]:
        return [row for row in self._rows.by_seq.values() if row.key]

    async def find(self, event_id: str) -> Row | None:
        rows = [row.row(self._rows.now()) for row in self._rows.by_seq.values()]
        return next((row for row in rows if row.id == event_id), None)


class MemoryDelivery:
    """The delivery record, whose wait goes by the store's clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._record = HEALTHY_DELIVERY
        self._saved_at = 0.0

    @property
    def record(self) -> DeliveryRecord:
        waited = self._now() - self._saved_at
        left = max(0.0, self._record.reopens_in_seconds - waited)
        return msgspec.structs.replace(self._record, reopens_in_seconds=left)

    def change(self, record: DeliveryRecord) -> DeliveryRecord:
        """Store `record` under the next revision."""
        revision = self._record.revision + 1
        self._record = msgspec.structs.replace(record, revision=revision)
        self._saved_at = self._now()
        return self.record

    async def load(self) -> DeliveryRecord:
        return self.record

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        kept = self._record
        return self.change(
            msgspec.structs.replace(
                record, paused_by=kept.paused_by, pause_reason=kept.pause_reason
            )
        )


class MemoryInspector:
    """The figures and the rows."""

    def __init__(self, rows: MemoryRows, delivery: MemoryDelivery) -> None:
        self._rows = rows
        self._delivery = delivery

    async def stats(self) -> Stats:
        self._rows.due()
        count = self._rows.count
        return Stats(
            pending=count(State.PENDING),
            delivering=count(State.DELIVERING),
            delivered=count(State.DELIVERED),
            dead=count(State.DEAD),
            sent=count(State.SENT),
            oldest_pending_seconds=None,
            oldest_due_seconds=None,
            delivery=self._delivery.record,
            database_bytes=0,
            wal_bytes=None,
        )

    async def rows(self, wanted: Filter) -> list[Row]:
        now = self._rows.now()
        return [row.row(now) for row in _matching(self._rows, wanted)]


class MemoryRepairs:
    def __init__(self, rows: MemoryRows, delivery: MemoryDelivery) -> None:
        self._rows = rows
        self._delivery = delivery

    async def replay(self, wanted: Named, *, actor: str) -> list[str]:
        dead = msgspec.structs.replace(wanted.filter, state=State.DEAD)
        rows, now = _matching(self._rows, dead), self._rows.now()
        for row in rows:
            self._rows.put(row, State.PENDING)
            row.attempts, row.isolated, row.due_at = 0, False, 0.0
            row.settled_at = row.reason = row.detail = None
            row.note(f"replayed by {actor}", now)
        self._rows.wake()
        return [row.event.id for row in rows]

    async def discard(self, wanted: Named, *, actor: str) -> list[str]:
        rows = _matching(self._rows, wanted.filter)
        return self._rows.remove(row for row in rows if row.claim is None)

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        until = self._rows.now() - older_than_seconds
        delivered = self._rows.in_state(State.DELIVERED)
        return len(self._rows.remove(row for row in delivered if (row.settled_at or 0) <= until))

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        changes: dict[str, object] = {
            "paused_by": actor if paused else None,
            "pause_reason": reason if paused else "",
        }
        if ask_now:
            changes["reopens_in_seconds"] = 0.0
        return self._delivery.change(msgspec.structs.replace(self._delivery.record, **changes))


class MemoryOutbox:
    """`clock` gives seconds; a simulation's is its loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.rows = MemoryRows(clock)
        self.delivery = MemoryDelivery(clock)
        self.intake = MemoryIntake(self.rows)
        self.queue = MemoryQueue(self.rows)
        self.confirmations = MemoryConfirmations(self.rows)
        self.inspector = MemoryInspector(self.rows, self.delivery)
        self.repairs = MemoryRepairs(self.rows, self.delivery)


class MemoryStorage:
    """Outlives the outboxes that are opened on it, one at a time."""

    shared = False

    def __init__(self) -> None:
        self._outbox = MemoryOutbox(time.time)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[MemoryOutbox]:
        self._outbox.rows.restart()
        yield self._outbox


def _use(row: MemoryRow) -> KeyUse:
    digest = row.key.digest if row.key else b""
    return KeyUse(row.event.id, row.seq, row.event.accepted_at_ms, digest)


def _matching(rows: MemoryRows, wanted: Filter) -> list[MemoryRow]:
    """The newest first."""
    found = [
        row
        for row in rows.by_seq.values()
        if (wanted.ids is None or row.event.id in wanted.ids)
        and wanted.state in (None, row.state)
        and not (wanted.never_sent and (row.state is not State.PENDING or row.sends))
    ]
    return found[::-1][: wanted.limit]
