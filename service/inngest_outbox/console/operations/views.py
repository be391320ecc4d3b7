"""The JSON of rows and figures, for the commands and the page.

Names are camelCase, times milliseconds since 1970, durations seconds. No view has a payload.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import FAILING, DeliveryRecord, Note, Row, State

PAUSED = "paused"


class RowView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One row. A field that does not apply to its state is null.

    `inngest_id` is the ULID that Inngest gives to the event, `wire_id` the id that its sender
    chose. `environment` is null for the service's own.
    """

    id: str
    inngest_id: str | None
    wire_id: str | None
    environment: str | None
    name: str
    user_id: str
    state: State
    attempts: int
    sends: int
    isolated: bool
    accepted_at: int
    first_sent_at: int | None
    delivered_at: int | None
    dead_at: int | None
    due_in_seconds: float | None
    lease_in_seconds: float | None
    reason: str | None
    detail: str | None
    history: tuple[Note, ...]
    payload_bytes: int


class DeliveryView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of delivery.

    `state` is `paused` when a person paused it, else the breaker's. `reopens_in_seconds` is the
    time until the next try, 0 when events may be sent now.
    """

    state: str
    reason: str | None
    reopens_in_seconds: float


class StatsView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The outbox in figures.

    `sent` rows were answered and are not yet known to be held by Inngest. `eta_seconds` is the
    estimated time until nothing is pending, null when nothing moves. `serving` is true while a
    service runs on the outbox, null when unknown.
    """

    pending: int
    delivering: int
    sent: int
    delivered: int
    dead: int
    oldest_pending_seconds: float | None
    oldest_due_seconds: float | None
    delivery: DeliveryView
    rate: float
    eta_seconds: float | None
    destination: str | None
    confirmation: str | None
    database_bytes: int
    wal_bytes: int | None
    serving: bool | None

    @property
    def waiting(self) -> int:
        """The number of rows that are pending, delivering or sent."""
        return self.pending + self.delivering + self.sent

    @property
    def confirmation_fails(self) -> bool:
        """True while Inngest can't be asked about sent events."""
        return (self.confirmation or "").startswith(FAILING)


def payload_json(payload: bytes) -> str | None:
    r"""A stored payload as indented JSON, as far as its bytes are text; None where it is no JSON.

    >>> payload_json(b'{"a":1}'), payload_json(b'{"a":')
    ('{\n  "a": 1\n}', None)
    """
    try:
        return msgspec.json.format(payload.decode(errors="replace"), indent=2)
    except (msgspec.DecodeError, RecursionError):
        return None


def payload_text(payload: bytes) -> str:
    r"""A stored payload for reading: indented JSON, or the text that it is.

    >>> payload_text(b'{"a":1}'), payload_text(b'{"a":')
    ('{\n  "a": 1\n}', '{"a":')
    """
    return payload_json(payload) or payload.decode(errors="replace")


def row_view(row: Row) -> RowView:
    """The view of one row."""
    return RowView(
        **_shared(row, RowView),
        **{**_shared(row.meta, RowView), "wire_id": row.meta.wire_id or None},
        accepted_at=row.accepted_at_ms,
        first_sent_at=row.first_sent_at_ms,
        delivered_at=row.settled_at_ms if row.state is State.DELIVERED else None,
        dead_at=row.settled_at_ms if row.state is State.DEAD else None,
    )


def stats_view(stats: Stats, *, serving: bool | None) -> StatsView:
    """The view of the figures."""
    record = stats.delivery
    return StatsView(
        **{**_shared(stats, StatsView), "delivery": delivery_view(record)},
        rate=record.rate,
        eta_seconds=eta_seconds(stats),
        destination=record.destination or None,
        confirmation=record.confirmation or None,
        serving=serving,
    )


def _shared(source: msgspec.Struct, view: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields that a view has under the same name."""
    names = set(source.__struct_fields__).intersection(view.__struct_fields__)
    return {name: getattr(source, name) for name in names}


def delivery_view(record: DeliveryRecord) -> DeliveryView:
    """The view of the delivery record."""
    if record.paused_by is not None:
        said = f": {record.pause_reason}" if record.pause_reason else ""
        words = f"paused by {record.paused_by}{said}"
        return DeliveryView(PAUSED, words, record.reopens_in_seconds)
    return DeliveryView(record.state, record.reason or None, record.reopens_in_seconds)


_MOVING = ("healthy", "recovering")


def eta_seconds(stats: Stats) -> float | None:
    """The estimate until everything is delivered: 0 when nothing waits, None when nothing moves.

    What is pending and not due does not move.
    """
    waiting = stats.pending + stats.delivering + stats.sent
    if not waiting:
        return 0.0
    delivery = stats.delivery
    is_delayed = stats.pending > 0 and stats.oldest_due_seconds is None
    if is_delayed or delivery.paused_by is not None or delivery.state not in _MOVING:
        return None
    return round(waiting / delivery.rate, 1) if delivery.rate > 0 else None


class Movement(msgspec.Struct, frozen=True, gc=False):
    """The later of two samples, and the rates between them in events per second."""

    view: StatsView
    accepted_rate: float
    delivered_rate: float


def moved(before: Movement | None, view: StatsView, seconds: float) -> Movement:
    """The rates since `before`, `seconds` ago. Purged rows do not make a rate negative."""
    if before is None or seconds <= 0:
        return Movement(view, 0.0, 0.0)
    old = before.view
    settled = view.delivered + view.dead - old.delivered - old.dead
    delivered = max(0, view.delivered - old.delivered)
    accepted = max(0, settled + view.waiting - old.waiting)
    return Movement(view, accepted / seconds, delivered / seconds)
