"""An event as its owner sees it: the state of its row and of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from inngest_outbox.inngest.runs import Run
from inngest_outbox.outbox.model import Row, State

_Ms = Annotated[int, Meta(description="Milliseconds since 1970.")]


class EventView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An event. Fields of later states are null."""

    id: str
    inngest_id: Annotated[str | None, Meta(description="The id under which Inngest has the event.")]
    name: str
    state: State
    attempts: Annotated[int, Meta(ge=0, description="Tries that the event itself decided.")]
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
        tuple[Run, ...], Meta(description="The runs of further functions that the event started.")
    ]
    no_run: Annotated[
        bool, Meta(description="True when Inngest has held the event for long and runs nothing.")
    ]
    id_used: Annotated[
        bool,
        Meta(description="True when it runs nothing, and held another event with this id before."),
    ]
    final: Annotated[bool, Meta(description="True when nothing more is expected to change.")]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, the first one first."""
        return (self.run, *self.other_runs) if self.run else ()


def event_view(row: Row, *, runs_follow: bool) -> EventView:
    """The view of a row without its runs. `runs_follow` is true when they can be asked for."""
    ends_here = row.state is State.DELIVERED and not (runs_follow and row.inngest_id)
    return EventView(
        id=row.id,
        inngest_id=row.at_inngest,
        name=row.name,
        state=row.state,
        attempts=row.attempts,
        accepted_at=row.accepted_at_ms,
        delivered_at=row.settled_at_ms if row.state is State.DELIVERED else None,
        reason=f"{row.reason}: {row.detail}" if row.reason and row.detail else row.reason,
        run=None,
        other_runs=(),
        no_run=False,
        id_used=False,
        final=row.state is State.DEAD or ends_here,
    )


def with_runs(
    view: EventView,
    runs: Sequence[Run],
    *,
    ended: bool = False,
    no_run: bool = False,
    id_used: bool = False,
) -> EventView:
    """The view with these runs. It is final when they have `ended`, or when there is `no_run`."""
    return msgspec.structs.replace(
        view,
        run=runs[0] if runs else None,
        other_runs=tuple(runs[1:]),
        no_run=no_run,
        id_used=no_run and id_used,
        final=view.state is State.DEAD or (view.state is State.DELIVERED and (ended or no_run)),
    )


def has_left(state: State) -> bool:
    """True once Inngest has answered the event: it may hold it, and may have runs of it."""
    return state not in (State.PENDING, State.DELIVERING, State.DEAD)
