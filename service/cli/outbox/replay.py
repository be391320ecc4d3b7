"""`outbox replay`: sends dead events again."""

from __future__ import annotations

from collections.abc import Sequence

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
    warn_of_horizon,
    warn_of_limit,
)
from service.operations.bulk import change_rows
from service.outbox.audit import act_of
from service.outbox.model import Filter, Row, State


def replay(
    ids: Ids = None,
    *,
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
    """Send dead events again, under the same ids; without --yes only say which.

    Inngest ignores an id that it took within 24 h. It has forgotten events that were sent longer
    ago: their functions may run a second time.

    Examples: `outbox replay 019e… --yes`, `outbox replay --reason rejected`, `outbox replay --all`
    """
    wanted = filter_of(
        ids=tuple(ids) if ids else None,
        state=State.DEAD,
        user=user,
        name=name,
        reason=reason,
        older_than=older_than,
        limit=limit,
    )
    refuse_unless_chosen(wanted, every=every)
    rows = chosen_rows(url, wanted)
    warn_of_limit(rows, limit)
    warn_of_horizon(rows)
    done = run(_replay(url, rows, wanted, actor_name(actor))) if yes else None
    report("replay", rows, done, json=json)


async def _replay(url: str, rows: Sequence[Row], wanted: Filter, actor: str) -> list[str]:
    async with open_repairs(url) as outbox:
        return await change_rows(outbox.replay, rows, actor=actor, act=act_of(wanted))
