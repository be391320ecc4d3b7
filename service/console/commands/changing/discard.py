"""`outbox discard`: removes events for good."""

from __future__ import annotations

import typer

from service.console.operations.changing.proposals import Action
from service.console.terminal.command import DEFAULT_URL, Url
from service.console.terminal.options import (
    ChangeOptions,
    Ids,
    Json,
    OfState,
    RowOptions,
    with_groups,
)
from service.console.terminal.selection import (
    change_chosen,
    chosen_rows,
    refuse_unless_chosen,
    warn_of_limit,
)
from service.outbox.model import State


@with_groups
def discard(
    ids: Ids = None,
    *,
    state: OfState = None,
    rows: RowOptions,
    how: ChangeOptions,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove events for good, delivered or not; without --yes only say which.

    Takes dead rows unless you give ids or --state. A row that is being sent stays.

    Examples: `outbox discard 019e… --yes`, `outbox discard --reason too_large --until 7d`
    """
    refuse_unless_chosen(ids, rows, every=how.every or state is not None)
    wanted = rows.filter(
        ids=tuple(ids) if ids else None,
        state=state or (None if ids else State.DEAD),
        limit=how.limit,
    )
    found = chosen_rows(url, wanted)
    warn_of_limit(found, how.limit)
    removable = [row for row in found if row.state is not State.DELIVERING]
    lost = sum(row.state is not State.DELIVERED for row in removable)
    if lost and not json:
        typer.echo(f"{lost:,} of them never reached Inngest, and never will.", err=True)
    change_chosen(Action.DISCARD, url, removable, wanted, how, json=json)
