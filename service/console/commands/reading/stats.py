"""`outbox stats`: the outbox in figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from service.bootstrap.operations import is_served, known_names, open_inspector
from service.config.outbox_url import redacted_url
from service.console.operations.views import stats_view
from service.console.terminal.command import DEFAULT_URL, Url, run
from service.console.terminal.options import Json
from service.console.terminal.tables import (
    names_table,
    owners_table,
    print_json,
    show_lines,
    stats_table,
)
from service.outbox.figures import OwnerShare, Stats
from service.runs.figures import NameView

Owners = Annotated[
    bool,
    typer.Option("--owners", help="Also show who holds the most bytes. Reads every row."),
]
_MAX_OWNERS = 10


def stats(*, owners: Owners = False, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the outbox in figures: rows by state, ages, delivery, the rate, sizes, runs by name.

    Example: `outbox stats --json`
    """
    found, shares, names = run(_stats(url, with_owners=owners))
    view = stats_view(found, serving=is_served(url))
    address = redacted_url(url)
    if json:
        held = {"owners": shares} if owners else {}
        by_name = {"names": names}
        print_json({"outbox": address, **msgspec.to_builtins(view), **by_name, **held})
        return
    typer.echo(address)
    show_lines(stats_table(view))
    if names:
        show_lines(names_table(names))
    if owners:
        show_lines(owners_table(shares))


async def _stats(
    url: str, *, with_owners: bool
) -> tuple[Stats, list[OwnerShare], Sequence[NameView]]:
    async with open_inspector(url) as outbox:
        shares = await outbox.owners(_MAX_OWNERS) if with_owners else []
        figures = await outbox.stats()
    return figures, shares, (await known_names(url)).names
