"""`outbox list`: rows that match, newest first."""

from __future__ import annotations

import msgspec
import typer

from service.bootstrap.operations import open_reading
from service.console.operations.search import Listing, Search, SearchPolicy, list_rows
from service.console.operations.views import row_view
from service.console.terminal.command import DEFAULT_URL, Url, run
from service.console.terminal.options import Cursor, Json, Limit, OfState, RowOptions, with_groups
from service.console.terminal.row_list import row_list, searched_to
from service.console.terminal.tables import console, print_json, show_lines
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter

_FINDING, _COUNTING = SearchPolicy(budget_seconds=8.0), SearchPolicy(budget_seconds=2.0)


@with_groups
def list_command(
    *,
    state: OfState = None,
    rows: RowOptions,
    limit: Limit = 20,
    cursor: Cursor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List rows, newest first. Every given filter must match.

    A search that takes longer than 8 s says on standard error how far back it went, and with which
    --cursor it continues.

    Examples: `outbox list --state dead --since 2h`, `outbox list --user u-1 --json`
    """
    wanted = msgspec.structs.replace(rows.filter(state=state, limit=limit), before_seq=cursor)
    say(run(_listing(url, wanted)), json=json)


def say(listing: Listing, *, json: bool) -> None:
    """Print the rows, and on standard error what is not among them."""
    found = listing.found
    views = [row_view(row) for row in found.rows]
    if json:
        print_json(views)
    elif views:
        show_lines(row_list(views, wall_now_ms(), console().width))
    if found.paused_at_ms is not None:
        rest = f"--cursor {found.next_seq} continues"
        typer.echo(searched_to(found.paused_at_ms, rest), err=True)
    elif not json and not views:
        typer.echo("No rows match.", err=True)
    elif not json and found.next_seq is not None:
        rest = f"--limit shows more, --cursor {found.next_seq} the next ones"
        typer.echo(f"{listing.words}; {rest}.", err=True)


async def _listing(url: str, wanted: Filter) -> Listing:
    async with open_reading(url) as outbox:
        search, counting = (
            Search(outbox.inspector, outbox.positions, policy) for policy in (_FINDING, _COUNTING)
        )
        return await list_rows(search, counting, wanted)
