"""`outbox replay`: sends dead events again."""

from __future__ import annotations

from collections.abc import Sequence

from service.bootstrap.operations import open_repairs
from service.console.operations.changing.bulk import change_rows
from service.console.terminal.address import DEFAULT_URL, Url
from service.console.terminal.command import run
from service.console.terminal.options import (
    ChangeOptions,
    Ids,
    Json,
    RowOptions,
    actor_name,
    with_groups,
)
from service.console.terminal.selection import (
    chosen_rows,
    refuse_unless_chosen,
    report,
    warn_of_horizon,
    warn_of_limit,
)
from service.console.terminal.tables import progress_bar
from service.outbox.audit import act_of
from service.outbox.model import Filter, Row, State


@with_groups
def replay(
    ids: Ids = None,
    *,
    rows: RowOptions,
    how: ChangeOptions,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Send dead events again, under the same ids; without --yes only say which.

    Inngest ignores an id that it took within 24 h. It has forgotten events that were sent longer
    ago: their functions may run a second time.

    Examples: `outbox replay 019e… --yes`, `outbox replay --reason rejected --since 1d`
    """
    refuse_unless_chosen(ids, rows, every=how.every)
    wanted = rows.filter(ids=tuple(ids) if ids else None, state=State.DEAD, limit=how.limit)
    found = chosen_rows(url, wanted)
    warn_of_limit(found, how.limit)
    warn_of_horizon(found)
    done = run(_replay(url, found, wanted, actor_name(how.actor))) if how.yes else None
    report("replay", found, done, json=json)


async def _replay(url: str, rows: Sequence[Row], wanted: Filter, actor: str) -> list[str]:
    with progress_bar("replaying") as progress:
        async with open_repairs(url) as outbox:
            return await change_rows(
                outbox.replay, rows, actor=actor, act=act_of(wanted), told=progress
            )
