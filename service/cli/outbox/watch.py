"""`outbox watch`: live figures, with a bar while the outbox drains.

A terminal shows one picture that is redrawn; elsewhere each sample is a line. Ctrl-C ends it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.bootstrap.operations import is_served, open_inspector
from service.cli.outbox.address import DEFAULT_URL, Url
from service.cli.outbox.command import exit_on_fault
from service.cli.outbox.options import Json, duration
from service.cli.outbox.tables import console, delivery_text, stats_table
from service.errors import OutboxUnavailableError
from service.operations.explain import spoken_duration
from service.operations.rates import Movement, moved
from service.operations.views import stats_view

Interval = Annotated[
    float,
    typer.Option("--interval", parser=duration, metavar="DURATION", help="Between two looks."),
]
Count = Annotated[int, typer.Option("--count", min=0, help="End after so many samples; 0: never.")]
_LEAST_SECONDS = 0.1
_BAR_COLUMNS = 50


def watch(
    *,
    interval: Interval = "1s",  # type: ignore[assignment]
    count: Count = 0,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Watch the outbox live: rows by state, rates, delivery, a bar while it drains.

    With --json each sample is one line.

    Example: `outbox watch --interval 500ms`
    """
    with exit_on_fault():
        try:
            asyncio.run(_watch(url, max(interval, _LEAST_SECONDS), count, json=json))
        except KeyboardInterrupt:
            return


async def _watch(url: str, interval_seconds: float, count: int, *, json: bool) -> None:
    if json or not sys.stdout.isatty():
        async for moving in _looks(url, interval_seconds, count):
            sys.stdout.write(f"{_json_line(moving) if json else _line(moving)}\n")
            sys.stdout.flush()
        return
    with Live(console=console(), auto_refresh=False, transient=False) as live:
        async for moving in _looks(url, interval_seconds, count):
            live.update(_picture(moving), refresh=True)


async def _looks(url: str, interval_seconds: float, count: int) -> AsyncIterator[Movement]:
    moving: Movement | None = None
    looked_at = 0.0
    seen = 0
    while True:
        try:
            async with open_inspector(url) as outbox:
                stats = await outbox.stats()
        except OutboxUnavailableError:
            if moving is None:
                raise
        else:
            now = time.monotonic()
            view = stats_view(stats, serving=is_served(url))
            moving = moved(moving, view, now - looked_at)
            looked_at = now
            yield moving
        seen += 1
        if count and seen >= count:
            return
        await asyncio.sleep(interval_seconds)


def _json_line(moving: Movement) -> str:
    rates = {"acceptedRate": moving.accepted_rate, "deliveredRate": moving.delivered_rate}
    return msgspec.json.encode({**msgspec.to_builtins(moving.view), **rates}).decode()


def _line(moving: Movement) -> str:
    view = moving.view
    return (
        f"pending={view.pending} delivering={view.delivering} sent={view.sent} "
        f"delivered={view.delivered} dead={view.dead} accepted/s={moving.accepted_rate:.0f} "
        f"delivered/s={moving.delivered_rate:.0f} delivery={delivery_text(view)}"
    )


def _picture(moving: Movement) -> RenderableType:
    view = moving.view
    rates = Table.grid(padding=(0, 2))
    rates.add_row("accepted", Text(f"{moving.accepted_rate:,.0f}/s", style="cyan"))
    rates.add_row("delivered", Text(f"{moving.delivered_rate:,.0f}/s", style="green"))
    parts: list[RenderableType] = [stats_table(view), Text(), rates]
    if moving.waiting:
        done = moving.peak - moving.waiting
        bar = ProgressBar(total=max(1, moving.peak), completed=done, width=_BAR_COLUMNS)
        left = _time_left(moving)
        parts += [Text(), bar, Text(f"{moving.waiting:,} waiting, {left}"), delivery_text(view)]
    parts.append(Text("Ctrl-C ends this.", style="dim"))
    return Group(*parts)


def _time_left(moving: Movement) -> str:
    gain = moving.delivered_rate - moving.accepted_rate
    if gain <= 0:
        return "not draining"
    return f"drained in about {spoken_duration(moving.waiting / gain)}"
