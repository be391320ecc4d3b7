"""How rows and figures are shown to people and programs: the JSON of the commands and the page.

Names are camelCase, times milliseconds since 1970, durations seconds. Nothing here holds a payload.
"""

from __future__ import annotations

import msgspec

from service.outbox.outbox import Row, State, Stats

PAUSED = "paused"


class RowView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One row. What does not apply to its state is null."""

    id: str
    name: str
    user_id: str
    state: State
    attempts: int
    sends: int
    alone: bool
    accepted_at: int
    first_sent_at: int | None
    delivered_at: int | None
    dead_at: int | None
    due_in_seconds: float | None
    lease_in_seconds: float | None
    reason: str | None
    detail: str | None
    history: tuple[dict[str, object], ...]
    payload_bytes: int


class StatsView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The outbox in figures.

    `lane` is `paused` when a person paused delivery, else what the lane knows of Inngest; it is
    null before anything was served. `eta_seconds` is the estimate until nothing is pending, null
    when nothing moves. `serving` says whether a service holds the outbox, null when that can't be
    known.
    """

    pending: int
    delivering: int
    delivered: int
    dead: int
    oldest_pending_seconds: float | None
    oldest_due_seconds: float | None
    lane: str | None
    lane_reason: str | None
    lane_reopens_in_seconds: float | None
    rate: float
    eta_seconds: float | None
    database_bytes: int | None
    wal_bytes: int | None
    serving: bool | None


def row_view(row: Row) -> RowView:
    """The view of one row."""
    return RowView(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        state=row.state,
        attempts=row.attempts,
        sends=row.sends,
        alone=row.alone,
        accepted_at=row.accepted_at_ms,
        first_sent_at=row.first_sent_at_ms,
        delivered_at=row.settled_at_ms if row.state is State.DELIVERED else None,
        dead_at=row.settled_at_ms if row.state is State.DEAD else None,
        due_in_seconds=row.due_in_seconds,
        lease_in_seconds=row.lease_in_seconds,
        reason=row.reason,
        detail=row.detail,
        history=row.history,
        payload_bytes=row.payload_bytes,
    )


def stats_view(stats: Stats, *, serving: bool | None) -> StatsView:
    """The view of the figures."""
    lane = stats.lane
    paused_by = lane.paused_by if lane else None
    return StatsView(
        pending=stats.pending,
        delivering=stats.delivering,
        delivered=stats.delivered,
        dead=stats.dead,
        oldest_pending_seconds=stats.oldest_pending_seconds,
        oldest_due_seconds=stats.oldest_due_seconds,
        lane=(PAUSED if paused_by else lane.state) if lane else None,
        lane_reason=f"paused by {paused_by}"
        if paused_by
        else (lane.reason or None)
        if lane
        else None,
        lane_reopens_in_seconds=lane.reopens_in_seconds if lane else None,
        rate=lane.rate if lane else 0.0,
        eta_seconds=eta_seconds(stats),
        database_bytes=stats.database_bytes,
        wal_bytes=stats.wal_bytes,
        serving=serving,
    )


def eta_seconds(stats: Stats) -> float | None:
    """The estimate until nothing is pending: 0 when nothing is, None when nothing moves."""
    waiting = stats.pending + stats.delivering
    if not waiting:
        return 0.0
    lane = stats.lane
    moves = lane is not None and lane.rate > 0 and lane.paused_by is None
    return round(waiting / lane.rate, 1) if lane and moves else None
