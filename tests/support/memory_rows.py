"""The rows of the in-memory store, and the clock by which they are due."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import MAX_NOTES, Entry, Note, Row, SentEntry, State

IDS = InngestIds(b"prefix")
_TICK_SECONDS = 1e-6  # below it a sum of floats moves no clock


@dataclass
class MemoryRow:
    """One event and where it is. Times are seconds of the store's clock."""

    seq: int
    event: Event
    born_at: float
    due_at: float = 0.0
    key: IdempotencyKey | None = None
    state: State = State.PENDING
    attempts: int = 0
    sends: int = 0
    isolated: bool = False
    claim: str | None = None
    claimed_at: float = 0.0
    lease_until: float = 0.0
    first_sent_at: float | None = None
    answered_at: float = 0.0
    settled_at: float | None = None
    reason: str | None = None
    detail: str | None = None
    notes: list[Note] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What the event of a simulation does to its request."""
        return self.event.name

    def entry(self) -> Entry:
        return Entry(
            self.seq,
            self.event.id,
            self.event.accepted_at_ms,
            self.event.user_id,
            self.attempts,
            self.isolated,
            _ms(self.first_sent_at),
            self.sends,
            meta=self.event.meta,
        )

    def sent_entry(self, now: float) -> SentEntry:
        since = self.answered_at if self.state is State.SENT else self.settled_at or now
        return SentEntry(
            self.seq,
            self.event.id,
            self.event.accepted_at_ms,
            now - since,
            self.sends,
            meta=self.event.meta,
        )

    def row(self, now: float) -> Row:
        claimed = self.state is State.DELIVERING
        first_sent_at = self.claimed_at if claimed else None
        return Row(
            id=self.event.id,
            name=self.event.name,
            owner=self.event.owner,
            user_id=self.event.user_id,
            state=self.state,
            attempts=self.attempts,
            sends=self.sends,
            isolated=self.isolated,
            accepted_at_ms=self.event.accepted_at_ms,
            first_sent_at_ms=_ms(self.first_sent_at or first_sent_at),
            settled_at_ms=_ms(self.settled_at),
            due_in_seconds=max(0.0, self.due_at - now) if self.state is State.PENDING else None,
            lease_in_seconds=max(0.0, self.lease_until - now) if claimed else None,
            reason=self.reason,
            detail=self.detail,
            history=tuple(self.notes),
            payload_bytes=len(self.event.payload),
            inngest_id=IDS.ulid(self.seq, self.event.accepted_at_ms),
            seq=self.seq,
            meta=self.event.meta,
        )

    def note(self, text: str | None, now: float) -> None:
        if text is not None:
            self.notes = [*self.notes, Note(_ms(now), text)][-MAX_NOTES:]


class MemoryRows:
    """All rows. They outlive a restart; a claim does not.

    A row's state is changed by `put` and `end_claim` alone: the rows are kept by state.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self.by_seq: dict[int, MemoryRow] = {}
        self.next_seq = 1
        self._by_state: dict[State, dict[int, MemoryRow]] = {state: {} for state in State}
        self._claims = itertools.count(1)
        self._changed = asyncio.Event()

    def append(self, event: Event, key: IdempotencyKey | None = None) -> MemoryRow:
        row = MemoryRow(self.next_seq, event, self.now(), event.meta.due_at_ms / 1000, key)
        self.next_seq += 1
        self.by_seq[row.seq] = self._by_state[row.state][row.seq] = row
        self.wake()
        return row

    def put(self, row: MemoryRow, state: State) -> None:
        """Put a row into a state."""
        del self._by_state[row.state][row.seq]
        row.state = state
        self._by_state[state][row.seq] = row

    def end_claim(self, row: MemoryRow, state: State) -> None:
        """A row leaves its claim: its send is counted."""
        row.first_sent_at = row.first_sent_at or row.claimed_at
        row.claim, row.sends = None, row.sends + 1
        self.put(row, state)

    def in_state(self, state: State) -> list[MemoryRow]:
        """The rows in this state, oldest first."""
        rows = self._by_state[state]
        return [rows[seq] for seq in sorted(rows)]

    def seqs(self, state: State) -> set[int]:
        """The numbers of the rows in this state."""
        return set(self._by_state[state])

    def count(self, state: State) -> int:
        return len(self._by_state[state])

    def due(self) -> list[MemoryRow]:
        """The rows that may be claimed now, oldest first; those of ended leases are among them."""
        now = self.now() + _TICK_SECONDS
        delivering = self.in_state(State.DELIVERING)
        self.release(row for row in delivering if row.lease_until <= now)
        return [row for row in self.in_state(State.PENDING) if row.due_at <= now]

    def take(self, rows: Iterable[MemoryRow], lease_seconds: float) -> str:
        """Claim rows; returns the claim."""
        claim, now = f"c-{next(self._claims)}", self.now()
        for row in rows:
            self.put(row, State.DELIVERING)
            row.claim, row.claimed_at, row.lease_until = claim, now, now + lease_seconds
        return claim

    def release(self, rows: Iterable[MemoryRow]) -> None:
        """Rows whose claim has ended are due again."""
        for row in rows:
            self.end_claim(row, State.PENDING)

    def restart(self) -> None:
        """The process that held the claims is gone."""
        self.release(self.in_state(State.DELIVERING))

    def remove(self, rows: Iterable[MemoryRow]) -> list[str]:
        removed = list(rows)
        for row in removed:
            del self.by_seq[row.seq], self._by_state[row.state][row.seq]
        return [row.event.id for row in removed]

    def wake(self) -> None:
        """Waiting claims look again."""
        self._changed.set()

    async def wait(self) -> None:
        """Until something has changed, or the clock makes a row due."""
        soon = self.now() + _TICK_SECONDS
        times = [row.due_at for row in self._by_state[State.PENDING].values()]
        times += [row.lease_until for row in self._by_state[State.DELIVERING].values()]
        wake = min((at - self.now() for at in times if at > soon), default=3600.0)
        self._changed.clear()
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({waiting}, timeout=wake)
        finally:
            waiting.cancel()


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
