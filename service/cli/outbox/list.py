"""`outbox list`: rows that match, newest first."""

from __future__ import annotations

import typer

from service.bootstrap.operations import open_inspector
from service.cli.outbox.address import DEFAULT_URL, Url
from service.cli.outbox.command import run
from service.cli.outbox.option_groups import with_groups
from service.cli.outbox.options import Json, Limit, OfState, RowOptions
from service.cli.outbox.row_list import row_list
from service.cli.outbox.tables import console, print_json, show_lines
from service.operations.listing import Listing, list_rows
from service.operations.views import row_view
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter


@with_groups
def list_command(
    *,
    state: OfState = None,
    rows: RowOptions,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List rows, newest first. Every given filter must match.

    Examples: `outbox list --state dead --since 2h`, `outbox list --user u-1 --json`
    """
    found = run(_found(url, rows.filter(state=state, limit=limit)))
    views = [row_view(row) for row in found.rows]
    if json:
        print_json(views)
        return
    if not views:
        typer.echo("No rows match.", err=True)
        return
    show_lines(row_list(views, wall_now_ms(), console().width))
    if found.total > len(views):
        typer.echo(f"{found.words}; --limit shows more.", err=True)


async def _found(url: str, wanted: Filter) -> Listing:
    async with open_inspector(url) as outbox:
        return await list_rows(outbox, wanted)
