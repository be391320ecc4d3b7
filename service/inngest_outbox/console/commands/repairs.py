"""`outbox replay`, `discard` and `purge`: events sent again, or removed."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from inngest_outbox.bootstrap.operations import open_reading, open_writing
from inngest_outbox.console.operations.bulk import MOST_PER_MINUTE, Action
from inngest_outbox.console.operations.explain import counted, spoken_duration
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, run
from inngest_outbox.console.terminal.options import (
    Actor,
    ChangeOptions,
    Ids,
    Json,
    OfState,
    RowOptions,
    Yes,
    actor_name,
    duration,
    with_groups,
)
from inngest_outbox.console.terminal.selection import (
    change_chosen,
    chosen_rows,
    refuse_unless_chosen,
    told_rows,
    warn_of_horizon,
    warn_of_limit,
)
from inngest_outbox.console.terminal.tables import print_json
from inngest_outbox.outbox.model import Filter, State

Rate = Annotated[
    int | None,
    typer.Option(
        "--rate", min=1, max=MOST_PER_MINUTE, metavar="N", help="Replay at most this many a minute."
    ),
]
OlderThan = Annotated[
    float,
    typer.Option(
        "--older-than",
        parser=duration,
        metavar="DURATION",
        envvar="OUTBOX_RETENTION",
        help="Delivered longer ago than this.",
    ),
]
_COUNTED = 10_000


@with_groups
def replay(
    ids: Ids = None,
    *,
    rows: RowOptions,
    how: ChangeOptions,
    rate: Rate = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Send dead events again, under the same ids; without --yes only say which.

    Inngest ignores an id that it took within 24 h. It has forgotten events that were sent longer
    ago: their functions may run a second time. With --rate the command runs until the last one is
    replayed; Ctrl-C leaves the rest dead.

    Examples: `outbox replay 019e… --yes`, `outbox replay --reason rejected --rate 10 --yes`
    """
    refuse_unless_chosen(ids, rows, every=how.every)
    wanted = rows.filter(ids=tuple(ids) if ids else None, state=State.DEAD, limit=how.limit)
    found = chosen_rows(url, wanted)
    warn_of_limit(found, how.limit)
    warn_of_horizon(found)
    change_chosen(Action.REPLAY, url, found, wanted, how, per_minute=rate, json=json)


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
        typer.echo(f"{lost:,} of them may not have reached Inngest, and never will.", err=True)
    change_chosen(Action.DISCARD, url, removable, wanted, how, json=json)


def purge(
    *,
    older_than: OlderThan = "7d",  # type: ignore[assignment]
    yes: Yes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove delivered rows; without --yes only say how many.

    The service does so by itself after OUTBOX_RETENTION. No other rows are touched.

    Example: `outbox purge --older-than 1d --yes`
    """
    if yes:
        gone = run(_purge(url, older_than, actor_name(actor)))
        if json:
            print_json({"action": "purge", "done": True, "rows": gone, "hasMore": False})
        else:
            typer.echo(f"Removed {counted(gone, 'delivered row')}.")
        return
    found, is_bounded = run(_settled_before(url, older_than))
    if json:
        print_json({"action": "purge", "done": False, "rows": found, "hasMore": is_bounded})
        return
    more = "more than " if is_bounded else ""
    age = spoken_duration(older_than)
    typer.echo(
        f"Would remove {more}{counted(found, 'row')} delivered longer than {age} ago. "
        "Nothing was changed: give --yes to do it."
    )


async def _settled_before(url: str, older_than_seconds: float) -> tuple[int, bool]:
    """The number of delivered rows settled longer ago; True where there may be more."""
    before_ms = int((time.time() - older_than_seconds) * 1000)
    limit = _COUNTED + 1
    wanted = Filter(state=State.DELIVERED, until_ms=before_ms, limit=limit)
    async with open_reading(url) as outbox:
        rows = await told_rows(outbox, wanted)
    old = sum((row.settled_at_ms or 0) <= before_ms for row in rows[:_COUNTED])
    return old, len(rows) > _COUNTED


async def _purge(url: str, older_than_seconds: float, actor: str) -> int:
    async with open_writing(url) as outbox:
        return await outbox.repairs.purge(older_than_seconds=older_than_seconds, actor=actor)
