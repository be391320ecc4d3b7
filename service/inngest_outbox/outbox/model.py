"""The states and values of the durable queue.

::

                      claim             settle: sent       confirm
    append ──> pending ─────> delivering ──────────> sent ─────────> delivered ──(retention)──> gone
                  ^               │ │ │               │                  ^
                  │ settle: retry,│ │ └───────────────┼──────────────────┘ settle: delivered
                  │ lease expired │ │ settle: dead    │ resend
                  ├───────────────┘ └──────────> dead │
                  ├──────────── replay ───────────┘   │
                  └───────────────────────────────────┘

`sent` needs confirmation: Inngest has answered and is not yet known to hold the event.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from inngest_outbox.outbox.event import NO_META, Meta
from inngest_outbox.outbox.inngest_id import WantedEvent

MAX_NOTES = 20  # of a row's history; the oldest go


class State(enum.StrEnum):
    """Where a row is."""

    PENDING = "pending"
    DELIVERING = "delivering"
    SENT = "sent"
    DELIVERED = "delivered"
    DEAD = "dead"


class Isolated(enum.StrEnum):
    """The turn of rows that must be sent alone in a claim."""

    FIRST = "first"
    LAST = "last"
    NONE = "none"


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A claimed row without its bytes. The defaults are those of an event that was never sent.

    `seq` names it inside its store. `attempts` counts the tries that the event itself decided; an
    outage adds none. `isolated` says that it must be sent alone. `first_sent_at_ms` is when its
    bytes may first have left, None if never before this claim; `sends` counts claims before this
    one.
    """

    seq: int
    event_id: str
    accepted_at_ms: int
    user_id: str
    attempts: int = 0
    isolated: bool = False
    first_sent_at_ms: int | None = None
    sends: int = 0
    meta: Meta = NO_META

    @property
    def as_sent(self) -> WantedEvent:
        """The event as Inngest has it."""
        return WantedEvent.sent(self.event_id, self.meta)


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Rows under one claim, oldest first; `claim` is the token that a settle names.

    `payloads` are the rows' bytes in the same order, joined by commas, without brackets.
    """

    claim: str
    entries: tuple[Entry, ...]
    payloads: bytes


class ClaimRequest(msgspec.Struct, frozen=True, gc=False):
    """The wishes of a claim.

    At most `max_events` rows and `max_bytes` of payload (one row is always taken), under a lease
    of `lease_seconds`. `fresh_share` (0 to 1) of the rows are the newest due ones, the others the
    oldest. Below 1, a store may take only rows as the newest that were accepted lately. A row that
    must be sent alone is returned alone: before any other (`FIRST`), only when nothing else is due
    (`LAST`), or not at all (`NONE`).
    """

    max_events: int
    max_bytes: int
    lease_seconds: float
    fresh_share: float = 0.0
    isolated: Isolated = Isolated.FIRST


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Back to pending, due after `delay_seconds`.

    `attempts` is the new count. `note` goes into the row's history, None adds nothing.
    """

    seq: int
    delay_seconds: float
    attempts: int
    isolated: bool
    note: str | None = None


class Dead(msgspec.Struct, frozen=True, gc=False):
    """To dead, for `reason` (a short code, such as `rejected`) with `detail` (words)."""

    seq: int
    attempts: int
    reason: str
    detail: str


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The ends of the rows under `claim`. Rows that are not named stay claimed.

    `sent` rows were answered and wait for a confirmation; `delivered` rows need none. `answered`
    has the ULIDs of rows to which Inngest gave another one than theirs.
    """

    claim: str
    delivered: Sequence[int] = ()
    sent: Sequence[int] = ()
    retry: Sequence[Retry] = ()
    dead: Sequence[Dead] = ()
    answered: Sequence[tuple[int, str]] = ()

    @property
    def seqs(self) -> list[int]:
        """The rows that it names."""
        retry, dead = ([one.seq for one in rows] for rows in (self.retry, self.dead))
        return [*self.delivered, *self.sent, *retry, *dead]


FAILING = "failing"
"""The beginning of a record's `confirmation` while Inngest can't be asked about sent events."""


class DeliveryRecord(msgspec.Struct, frozen=True, gc=False):
    """The delivery's state as the store keeps it.

    `state` and `reason` are the breaker's (`inngest_outbox.relay.breaker`). `window` is the
    size of the next batch, `failures` the failures in a row. `reopens_in_seconds` counts
    from now by the store's clock.
    `revision` grows with every save, by any process. `paused_by` is the operator who paused
    delivery, None when it is not paused; `pause_reason` is the reason that operator gave. `rate`
    is events delivered per second, lately. `destination` and `confirmation` say in words where
    events go and whether they are confirmed; empty before a service has run.
    """

    state: str
    reason: str
    window: int
    failures: int
    reopens_in_seconds: float
    since_ms: int
    rate: float = 0.0
    paused_by: str | None = None
    revision: int = 0
    destination: str = ""
    confirmation: str = ""
    pause_reason: str = ""


class Note(msgspec.Struct, frozen=True, gc=False):
    """A note in a row's history. `at` is milliseconds since 1970."""

    at: int
    note: str


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row for people: everything but the payload.

    `seq` names it inside its store. `history` is its notes, oldest first. `due_in_seconds` is None
    unless it is pending, `lease_in_seconds` None unless it is delivering. `inngest_id` is the ULID
    under which Inngest has the event, or will have it.
    """

    id: str
    name: str
    owner: str
    user_id: str
    state: State
    attempts: int
    sends: int
    isolated: bool
    accepted_at_ms: int
    first_sent_at_ms: int | None
    settled_at_ms: int | None
    due_in_seconds: float | None
    lease_in_seconds: float | None
    reason: str | None
    detail: str | None
    history: tuple[Note, ...]
    payload_bytes: int
    inngest_id: str | None = None
    seq: int = 0
    meta: Meta = NO_META

    @property
    def has_payload(self) -> bool:
        """False once the payload was removed: an event has at least two bytes."""
        return self.payload_bytes > 0

    @property
    def at_inngest(self) -> str | None:
        """The ULID under which Inngest has the event, None before it has it."""
        has_it = self.state in (State.SENT, State.DELIVERED)
        return (self.meta.answered_id or self.inngest_id) if has_it else None

    @property
    def as_sent(self) -> WantedEvent:
        """The event as Inngest has it."""
        return WantedEvent.sent(self.id, self.meta)


class Filter(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A choice of rows: every given field must match.

    `alias` is an id that `owner` chose, if one is given, or a ULID from another outbox.
    `id_prefix` is how an id begins; where no state and no owner is given, only the 10,000 highest
    ids that begin so are searched. Rows accepted from `since_ms` on and before `until_ms` match.
    Only rows below `before_seq`, the last one of the page before, and above `after_seq` match. With
    an owner and a state, `after_seq` has the rows of the owner searched, else those of the state
    are. With `never_sent`, only pending rows whose bytes have never left match. `user_part`,
    `name_part` and `reason_part` are contained in any case, `payload_part` is in the stored payload
    as it is: its rows' payloads are read.
    """

    ids: tuple[str, ...] | None = None
    alias: str | None = None
    id_prefix: str | None = None
    state: State | None = None
    owner: str | None = None
    user_id: str | None = None
    name: str | None = None
    reason: str | None = None
    user_part: str | None = None
    name_part: str | None = None
    reason_part: str | None = None
    payload_part: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before_seq: int | None = None
    after_seq: int | None = None
    never_sent: bool = False
    limit: int = 100

    @property
    def of_reason(self) -> bool:
        """True where only rows with a reason can match: those are dead."""
        return self.reason is not None or self.reason_part is not None


class Named(msgspec.Struct, frozen=True, gc=False):
    """The rows of a change, which is one transaction: a page of ids, never what a filter finds.

    Only rows in `state` and of `owner` change, where these are given. With `never_sent`, only
    pending rows whose bytes have never left.
    """

    ids: tuple[str, ...]
    state: State | None = None
    owner: str | None = None
    never_sent: bool = False

    @property
    def filter(self) -> Filter:
        """The filter that finds them."""
        return Filter(**msgspec.structs.asdict(self), limit=len(self.ids))


class SentEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row that Inngest has answered, without its bytes.

    `sent_seconds` is how long ago it was settled as sent, by the store's clock; `sends` counts its
    claims.
    """

    seq: int
    event_id: str
    accepted_at_ms: int
    sent_seconds: float
    sends: int = 1
    meta: Meta = NO_META

    @property
    def as_sent(self) -> WantedEvent:
        """The event as Inngest has it."""
        return WantedEvent.sent(self.event_id, self.meta)


class Reach(msgspec.Struct, frozen=True, gc=False):
    """The end of a look down the rows: the last of them.

    `is_last` says that no row is below; where it is false, there may be one.
    """

    seq: int
    accepted_at_ms: int
    is_last: bool = False
