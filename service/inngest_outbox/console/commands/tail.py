"""`outbox tail`: follows what is accepted and what becomes of it, a line each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from inngest_outbox.bootstrap.operations import open_reading
from inngest_outbox.console.operations.bulk import moved_at
from inngest_outbox.console.operations.explain import spoken_duration
from inngest_outbox.console.operations.tail import Change, Tail
from inngest_outbox.console.operations.views import row_view
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, exit_on_fault
from inngest_outbox.console.terminal.options import (
    MOST_ROWS,
    Json,
    OfName,
    OfState,
    OfUser,
    duration,
)
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.printable import escaped_json, printable
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Filter, State

Lines = Annotated[
    int,
    typer.Option(
        "--lines", "-n", min=0, max=MOST_ROWS, help="Begin with so many of the newest rows."
    ),
]
_LEAST_SECONDS = 0.1  # so that the looks leave time for anything else

Interval = Annotated[
    float,
    typer.Option("--interval", parser=duration, metavar="DURATION", help="Between two looks."),
]


def tail(
    *,
    state: OfState = None,
    user: OfUser = None,
    name: OfName = None,
    lines: Lines = 10,
    interval: Interval = "1s",  # type: ignore[assignment]
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Follow new events and changes of state, a line each, until Ctrl-C. Times are in UTC.

    With --json each line is an object: `at`, `what` and the row. Beside a backlog of more than
    2,000 rows, the newest are followed; of a backlog in which few rows match, those that are found
    within a second.

    Examples: `outbox tail --user u-1`, `outbox tail --state dead --json`
    """
    wanted = Filter(state=state, user_id=user, name=name)
    with exit_on_fault():
        try:
            asyncio.run(_tail(url, wanted, lines, max(interval, _LEAST_SECONDS), json=json))
        except KeyboardInterrupt:
            return


async def _tail(
    url: str, wanted: Filter, lines: int, interval_seconds: float, *, json: bool
) -> None:
    async for change in _changes(url, wanted, lines, interval_seconds):
        sys.stdout.write(f"{_json_line(change) if json else _line(change)}\n")
        sys.stdout.flush()


async def _changes(
    url: str, wanted: Filter, lines: int, interval_seconds: float
) -> AsyncIterator[Change]:
    followed = Tail(wanted)
    async with open_reading(url) as outbox:
        seen = await followed.begin(outbox, lines)
    lost = False
    while True:
        for change in seen:
            yield change
        await asyncio.sleep(interval_seconds)
        try:
            async with open_reading(url) as outbox:
                seen = await followed.look(outbox)
        except OutboxUnavailableError as error:
            seen = []
            if not lost:
                typer.echo(f"outbox: {printable(str(error))} Looking again.", err=True)
            lost = True
        else:
            lost = False


def _line(change: Change) -> str:
    row = change.row
    at = datetime.fromtimestamp(_at_ms(change) / 1000, UTC)
    words = f"{at:%H:%M:%S} {change.what:10} {row.id} {_about(change)}"
    return printable(words).rstrip()


def _about(change: Change) -> str:
    row = change.row
    if change.what == State.DELIVERED:
        return f"after {spoken_duration(max(0, moved_at(row) - row.accepted_at_ms) / 1000)}"
    if change.what == State.DEAD:
        return f"{row.reason}: {row.detail}"
    if change.what == State.PENDING and row.history:
        return row.history[-1].note
    return f"{row.user_id} {row.name}"


def _at_ms(change: Change) -> int:
    """The time of the change, as far as the row says; else now."""
    row = change.row
    if change.what == State.PENDING and row.history:
        return row.history[-1].at
    if change.what in ("accepted", State.PENDING):
        return row.accepted_at_ms
    if change.what in (State.DELIVERED, State.DEAD):
        return moved_at(row)
    return wall_now_ms()


def _json_line(change: Change) -> str:
    fields = msgspec.to_builtins(row_view(change.row))
    line = msgspec.json.encode({"at": _at_ms(change), "what": change.what, **fields})
    return escaped_json(line.decode())
