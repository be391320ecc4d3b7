"""The ports of an outbox for requests, the relay and operators.

Invariants, for every store:

* `append` returns only after the event is durable (synced).
* A claim is a token over a set of rows; every settle names it. A settle under a claim that is no
  longer held changes nothing and is counted by its return value.
* Only a person's `discard` removes a row that is not delivered.
* Callers pass durations, never instants: the store's own clock decides leases and due times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from inngest_outbox.outbox.audit import Act, AuditRecord, ErasedRecords
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.figures import DeadGroup, OwnerShare, Sample, Stats
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.model import (
    Batch,
    ClaimRequest,
    DeliveryRecord,
    Filter,
    Named,
    Reach,
    Row,
    SentEntry,
    Settlement,
    State,
)


class Intake(Protocol):
    """Takes events from requests."""

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        """Make `event` durable, atomically with its key.

        With a key that this owner has used, returns the first receipt again (`replayed`) if the
        digest is equal. Safe to repeat only with a key. After a cancellation the event may be
        stored or not, never twice. Raises IdempotencyKeyReusedError for another digest,
        TooManyPendingError, OutboxFullError, OutboxUnavailableError (nothing was stored, or the
        outcome is unknown).
        """
        ...

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        """Make `events`, all of one owner, durable in one commit, each with its key; or none.

        Returns a receipt for each, in their order. A key that was used before, by an earlier event
        of the call too, replays the first receipt. Raises what `append` raises, for the whole: for
        one key that was used with another digest, and where not all that are new have room. Safe
        to repeat only where each has a key. After a cancellation all are stored or none.
        """
        ...

    async def find(self, event_id: str) -> Row | None:
        """The row with the service's id, None when there is none. Raises OutboxUnavailableError."""
        ...


class Queue(Protocol):
    """Gives events to the relay and takes the results."""

    async def claim(self, ask: ClaimRequest) -> Batch:
        """Wait until rows are due, then claim some: never empty.

        Repeated calls get other rows. After a cancellation no row stays claimed for longer than a
        lease. Raises OutboxUnavailableError.
        """
        ...

    async def settle(self, settlement: Settlement) -> int:
        """Settle, atomically; returns how many rows were no longer under this claim.

        Safe to repeat. Raises OutboxUnavailableError: nothing was changed, or the outcome is
        unknown.
        """
        ...


class Delivery(Protocol):
    """The delivery record, which the processes of one outbox share."""

    async def load(self) -> DeliveryRecord:
        """The record as last saved by any process; healthy at first.

        Raises OutboxUnavailableError.
        """
        ...

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        """Save the breaker's fields and keep `paused_by`; returns the stored record.

        Raises the record's revision. Raises OutboxUnavailableError.
        """
        ...


class Confirmations(Protocol):
    """Rows that Inngest has answered, until Inngest is known to hold their events."""

    @property
    def inngest_ids(self) -> InngestIds:
        """Derives the ULIDs of this outbox's rows."""
        ...

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """At most `limit` sent rows with a higher `seq`, in its order. Never blocks writers."""
        ...

    async def count_sent(self) -> int:
        """The number of sent rows. Never blocks writers."""
        ...

    async def may_ask(self) -> bool:
        """True while this process asks Inngest about all sent rows; one process at a time does.

        True also takes or keeps the turn for some seconds. Raises OutboxUnavailableError.
        """
        ...

    async def stop_asking(self) -> None:
        """Let another process ask. Safe to repeat. Raises OutboxUnavailableError."""
        ...

    async def confirm(self, seqs: Sequence[int]) -> int:
        """Sent rows become delivered, atomically; returns how many were still sent.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """Sent rows become pending, due now, with `note` in their history; returns how many were.

        The lost answer does not count as an attempt; the time of the first send stays. Atomic and
        safe to repeat. Raises OutboxUnavailableError.
        """
        ...


class Inspector(Protocol):
    """The questions of operators. Never blocks writers."""

    async def stats(self) -> Stats:
        """The figures of the outbox."""
        ...

    async def rows(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first."""
        ...

    async def count(self, wanted: Filter) -> int:
        """The number of matching rows, at most `wanted.limit`."""
        ...

    async def payload(self, event_id: str) -> bytes | None:
        """The stored bytes of one event, None when there is no such event."""
        ...

    async def load_delivery(self) -> DeliveryRecord:
        """The delivery record as last saved."""
        ...

    async def owners(self, limit: int) -> list[OwnerShare]:
        """The owners of the most bytes, the largest first. On SQLite it reads every row."""
        ...

    async def dead_groups(self, limit: int) -> list[DeadGroup]:
        """The newest dead rows, at most `limit`, by name and reason; the largest group first."""
        ...

    async def audit(self, limit: int, *, event: str | None = None) -> list[AuditRecord]:
        """The latest commands of operators, newest first.

        With `event`, an id or the beginning of one, only those that changed such an event.
        """
        ...


class Repairs(Protocol):
    """The changes of operators. `actor` goes into the audit.

    `act` is the command whose page a change is; None: the change is the whole command.
    """

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """The named rows that are dead become pending with no attempts counted; returns their ids.

        With the state DELIVERED it takes delivered rows, which Inngest is known to have lost. A row
        without its payload stays as it is.
        """
        ...

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Remove the named rows that are not under a claim; returns their ids."""
        ...

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago, in small pages; returns how many.

        `actor` None is the retention, which leaves no audit row.
        """
        ...

    async def purge_payloads(self, *, older_than_seconds: float) -> int:
        """Remove the payloads of delivered rows settled longer ago; returns how many rows lost one.

        The rows stay, for ids, idempotency and counts. It works in small pages and is safe to
        repeat.
        """
        ...

    async def erase_records(self, owner: str, *, actor: str) -> ErasedRecords:
        """Remove the settings of `owner`, and its name from audit and samples, in one commit.

        Its events are discarded before. The audit row of the erasure does not name the owner. Safe
        to repeat. On SQLite the file and its log hold no removed byte afterwards.
        """
        ...

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery for every process; returns the delivery record.

        With `ask_now`, delivery that waits for Inngest asks it at once. The audit has the reason.
        """
        ...


class Positions(Protocol):
    """Positions among the rows. No look reads many of them."""

    async def reach(
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        """The last of the newest `window` rows in this state, below `before_seq` if given.

        None when there are fewer. With `owner`, which goes with no state, only this owner's rows
        count. A store may end a look earlier, at a number that is of no such row, where it would go
        through too much that is in no state or in another one.
        """
        ...

    async def seq_at(self, at_ms: int) -> int:
        """The `seq` below which rows were accepted before `at_ms`.

        It is found by halving, so a clock that was set makes it inexact.
        """
        ...


class AuditTrail(Protocol):
    """Where acts of operators that change no row are kept."""

    async def record(
        self, action: str, *, actor: str, detail: str, event_id: str | None = None
    ) -> None:
        """Add an act, about one event or none, to the audit. Raises OutboxUnavailableError."""
        ...


class Samples(Protocol):
    """The outbox's history: a sample for each minute of the last 7 days."""

    async def add(self, sample: Sample) -> None:
        """Keep a sample unless its minute has one, and drop those of more than 7 days before.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...

    async def between(self, from_ms: int, until_ms: int) -> list[Sample]:
        """The samples of minutes that begin within these moments, oldest first."""
        ...
