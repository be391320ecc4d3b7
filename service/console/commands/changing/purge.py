"""`outbox purge`: removes delivered rows."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from service.bootstrap.operations import open_reading, open_repairs
from service.console.operations.changing.bulk import find_all
from service.console.operations.explain import spoken_duration
from service.console.operations.search import Search
from service.console.terminal.command import DEFAULT_URL, Url, run
from service.console.terminal.options import Actor, Json, Yes, actor_name, duration
from service.console.terminal.selection import say_found
from service.console.terminal.tables import print_json
from service.outbox.model import Filter, State

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
            print_json({"action": "purge", "done": True, "rows": gone})
        else:
            typer.echo(f"Removed {gone:,} delivered rows.")
        return
    found = run(_settled_before(url, older_than))
    if json:
        print_json({"action": "purge", "done": False, "rows": found})
        return
    more = "more than " if found >= _COUNTED else ""
    age = spoken_duration(older_than)
    typer.echo(
        f"Would remove {more}{found:,} rows delivered longer than {age} ago. "
        "Nothing was changed: give --yes to do it."
    )


async def _settled_before(url: str, older_than_seconds: float) -> int:
    before_ms = int((time.time() - older_than_seconds) * 1000)
    wanted = Filter(state=State.DELIVERED, older_than_seconds=older_than_seconds, limit=_COUNTED)
    async with open_reading(url) as outbox:
        rows = await find_all(Search(outbox.inspector, outbox.positions), wanted, say_found)
    return sum((row.settled_at_ms or 0) <= before_ms for row in rows)


async def _purge(url: str, older_than_seconds: float, actor: str) -> int:
    async with open_repairs(url) as outbox:
        return await outbox.purge(older_than_seconds=older_than_seconds, actor=actor)
