"""`outbox list`: rows that match, newest first."""

from __future__ import annotations

import typer

from service.bootstrap.operations import open_inspector
from service.cli.outbox.command import run
from service.cli.outbox.options import (
    DEFAULT_URL,
    Json,
    Limit,
    OfName,
    OfReason,
    OfState,
    OfUser,
    OlderThan,
    Url,
    filter_of,
)
from service.cli.outbox.tables import console, print_json, rows_table
from service.operations.views import row_view
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, Row


def list_rows(
    *,
    state: OfState = None,
    user: OfUser = None,
    name: OfName = None,
    reason: OfReason = None,
    older_than: OlderThan = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List rows, newest first. Every given filter must match.

    Examples: `outbox list --state dead`, `outbox list --user u-1 --older-than 10m --json`
    """
    wanted = filter_of(
        state=state, user=user, name=name, reason=reason, older_than=older_than, limit=limit
    )
    views = [row_view(row) for row in run(_rows(url, wanted))]
    if json:
        print_json(views)
        return
    if not views:
        typer.echo("No rows match.", err=True)
        return
    console().print(rows_table(views, wall_now_ms()))
    if len(views) == limit:
        typer.echo(f"The newest {limit} are shown; --limit shows more.", err=True)


async def _rows(url: str, wanted: Filter) -> list[Row]:
    async with open_inspector(url) as outbox:
        return await outbox.rows(wanted)
