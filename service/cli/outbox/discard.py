"""`outbox discard`: removes events for good."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from service.bootstrap.operations import open_repairs
from service.cli.outbox.command import run
from service.cli.outbox.options import (
    DEFAULT_URL,
    Actor,
    All,
    Ids,
    Json,
    Most,
    OfName,
    OfReason,
    OfState,
    OfUser,
    OlderThan,
    Url,
    Yes,
    actor_name,
    filter_of,
)
from service.cli.outbox.selection import (
    chosen_rows,
    refuse_unless_chosen,
    report,
    warn_of_limit,
)
from service.operations.bulk import change_rows
from service.outbox.audit import act_of
from service.outbox.model import Filter, Row, State


def discard(
    ids: Ids = None,
    *,
    state: OfState = None,
    user: OfUser = None,
    name: OfName = None,
    reason: OfReason = None,
    older_than: OlderThan = None,
    every: All = False,
    limit: Most = 100_000,
    yes: Yes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove events for good, delivered or not; without --yes only say which.

    Takes dead rows unless you give ids or --state. A row that is being sent stays.

    Examples: `outbox discard 019e… --yes`, `outbox discard --reason too_large --older-than 7d`
    """
    wanted = filter_of(
        ids=tuple(ids) if ids else None,
        state=state or (None if ids else State.DEAD),
        user=user,
        name=name,
        reason=reason,
        older_than=older_than,
        limit=limit,
    )
    refuse_unless_chosen(wanted, every=every or state is not None)
    found = chosen_rows(url, wanted)
    warn_of_limit(found, limit)
    rows = [row for row in found if row.state is not State.DELIVERING]
    lost = sum(row.state is not State.DELIVERED for row in rows)
    if lost and not json:
        typer.echo(f"{lost} of them never reached Inngest, and never will.", err=True)
    done = run(_discard(url, rows, wanted, actor_name(actor))) if yes else None
    report("discard", rows, done, json=json)


async def _discard(url: str, rows: Sequence[Row], wanted: Filter, actor: str) -> list[str]:
    async with open_repairs(url) as outbox:
        return await change_rows(outbox.discard, rows, actor=actor, act=act_of(wanted))
