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
from rich.live import Live

from service.bootstrap.operations import is_served, open_inspector
from service.config.outbox_url import redacted_url
from service.console.commands.address import DEFAULT_URL, Url
from service.console.commands.command import exit_on_fault
from service.console.commands.options import Json
from service.console.commands.picture import picture
from service.console.commands.sampling import Interval, least
from service.console.commands.tables import console, delivery_text
from service.console.operations.rates import Movement, moved
from service.console.operations.views import stats_view
from service.errors import OutboxUnavailableError
from service.observe.printable import escaped_json, printable

Count = Annotated[int, typer.Option("--count", min=0, help="End after so many samples; 0: never.")]


class _Sample(msgspec.Struct, frozen=True):
    """The latest figures; `fault` says why they could not be read again."""

    moving: Movement
    fault: str = ""


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
            asyncio.run(_watch(url, least(interval), count, json=json))
        except KeyboardInterrupt:
            return


async def _watch(url: str, interval_seconds: float, count: int, *, json: bool) -> None:
    if json or not sys.stdout.isatty():
        async for sample in _looks(url, interval_seconds, count):
            if sample.fault:
                typer.echo(f"outbox: {printable(sample.fault)}", err=True)
                continue
            sys.stdout.write(f"{_json_line(sample.moving) if json else _line(sample.moving)}\n")
            sys.stdout.flush()
        return
    address = redacted_url(url)
    with Live(console=console(), auto_refresh=False, transient=False) as live:
        async for sample in _looks(url, interval_seconds, count):
            live.update(picture(address, sample.moving, sample.fault), refresh=True)


async def _looks(url: str, interval_seconds: float, count: int) -> AsyncIterator[_Sample]:
    moving: Movement | None = None
    looked_at = 0.0
    seen = 0
    while True:
        try:
            async with open_inspector(url) as outbox:
                stats = await outbox.stats()
        except OutboxUnavailableError as error:
            if moving is None:
                raise
            yield _Sample(moving, str(error))
        else:
            now = time.monotonic()
            view = stats_view(stats, serving=is_served(url))
            moving = moved(moving, view, now - looked_at)
            looked_at = now
            yield _Sample(moving)
        seen += 1
        if count and seen >= count:
            return
        await asyncio.sleep(interval_seconds)


def _json_line(moving: Movement) -> str:
    rates = {"acceptedRate": moving.accepted_rate, "deliveredRate": moving.delivered_rate}
    line = msgspec.json.encode({**msgspec.to_builtins(moving.view), **rates})
    return escaped_json(line.decode())


def _line(moving: Movement) -> str:
    view = moving.view
    return (
        f"pending={view.pending} delivering={view.delivering} sent={view.sent} "
        f"delivered={view.delivered} dead={view.dead} accepted/s={moving.accepted_rate:.0f} "
        f"delivered/s={moving.delivered_rate:.0f} delivery={delivery_text(view)}"
    )
