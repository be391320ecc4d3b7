"""`outbox stats`: the outbox in figures."""

from __future__ import annotations

import msgspec
import typer

from service.bootstrap.operations import is_served, open_inspector
from service.cli.outbox.command import run
from service.cli.outbox.options import DEFAULT_URL, Json, Url
from service.cli.outbox.tables import console, print_json, stats_table
from service.config.outbox_url import redacted_url
from service.operations.views import stats_view
from service.outbox.model import Stats


def stats(*, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the outbox in figures: rows by state, ages, delivery, the rate, sizes.

    Example: `outbox stats --json`
    """
    view = stats_view(run(_stats(url)), serving=is_served(url))
    address = redacted_url(url)
    if json:
        print_json({"outbox": address, **msgspec.to_builtins(view)})
        return
    typer.echo(address)
    console().print(stats_table(view))


async def _stats(url: str) -> Stats:
    async with open_inspector(url) as outbox:
        return await outbox.stats()
