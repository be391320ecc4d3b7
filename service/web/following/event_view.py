"""An event as its owner sees it: where its row is, and what its runs do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from service.outbox.model import Row, State
from service.web.following.runs import Run

_Ms = Annotated[int, Meta(description="Milliseconds since 1970.")]


class EventView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An event. What has not happened is null."""

    id: str
    inngest_id: Annotated[str | None, Meta(description="The id under which Inngest has the event.")]
    name: str
    state: State
    attempts: Annotated[int, Meta(ge=0, description="Answers that judged this event alone.")]
    accepted_at: _Ms
    delivered_at: _Ms | None
    reason: Annotated[
        str | None, Meta(description="Why the event is dead: a code, then Inngest's words.")
    ]
    run: Annotated[
        Run | None,
        Meta(description="The event's first run, null before it or where Inngest can't be asked."),
    ]
    other_runs: Annotated[
        Sequence[Run], Meta(description="The runs of further functions that the event started.")
    ]
    final: Annotated[bool, Meta(description="Whether nothing more will happen to the event.")]


def event_view(row: Row, runs: Sequence[Run] = (), *, runs_follow: bool) -> EventView:
    """The view of a row with its runs. `runs_follow` says whether runs can be asked for."""
    return EventView(
        id=row.id,
        inngest_id=row.inngest_id if has_left(row) else None,
        name=row.name,
        state=row.state,
        attempts=row.attempts,
        accepted_at=row.accepted_at_ms,
        delivered_at=row.settled_at_ms if row.state is State.DELIVERED else None,
        reason=f"{row.reason}: {row.detail}" if row.reason and row.detail else row.reason,
        run=runs[0] if runs else None,
        other_runs=runs[1:],
        final=_is_final(row, runs, runs_follow=runs_follow),
    )


def has_left(row: Row) -> bool:
    """Whether Inngest has answered that it holds the event."""
    return row.state not in (State.PENDING, State.DELIVERING, State.DEAD)


def _is_final(row: Row, runs: Sequence[Run], *, runs_follow: bool) -> bool:
    if row.state is State.DEAD:
        return True
    if row.state is not State.DELIVERED:
        return False
    if not runs_follow or row.inngest_id is None:
        return True
    return bool(runs) and all(run.status.is_final for run in runs)
