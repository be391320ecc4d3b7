"""`outbox replay`: sends dead events again."""

from __future__ import annotations

from typing import Annotated

import typer

from service.console.operations.changing.bulk import MOST_PER_MINUTE
from service.console.operations.changing.proposals import Action
from service.console.terminal.command import DEFAULT_URL, Url
from service.console.terminal.options import ChangeOptions, Ids, Json, RowOptions, with_groups
from service.console.terminal.selection import (
    change_chosen,
    chosen_rows,
    refuse_unless_chosen,
    warn_of_horizon,
    warn_of_limit,
)
from service.outbox.model import State

Rate = Annotated[
    int | None,
    typer.Option(
        "--rate", min=1, max=MOST_PER_MINUTE, metavar="N", help="Replay at most this many a minute."
    ),
]


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
