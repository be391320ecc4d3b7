"""`outbox check`: one line and an exit code for monitoring.

0 all is well, 1 the oldest pending row is too old or a dead row exists, 2 it can't be told; the
word on the line is the one that Nagios gives to that code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

import typer

from service.bootstrap.operations import is_served, open_inspector
from service.cli.outbox.options import DEFAULT_URL, UNKNOWN, Json, Url, duration
from service.cli.outbox.tables import print_json
from service.errors import ServiceError
from service.operations.explain import spoken_duration
from service.operations.views import StatsView, stats_view
from service.outbox.model import Stats

MaxAge = Annotated[
    float,
    typer.Option(
        "--max-age",
        parser=duration,
        metavar="DURATION",
        help="Alarm when the oldest pending row is older.",
    ),
]
_WORDS = ("OK", "WARNING", "CRITICAL")
_ALARM = 1


def check(
    *,
    max_age: MaxAge = "5m",  # type: ignore[assignment]
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Check for monitoring: one line, and exit code 0 well, 1 alarm, 2 can't tell.

    An alarm is a pending row that is too old, or any dead row.

    Example: `outbox check --max-age 10m`
    """
    try:
        view = stats_view(asyncio.run(_stats(url)), serving=is_served(url))
    except ServiceError as error:
        _say(UNKNOWN, " ".join(str(error).split()), None, json=json)
        raise typer.Exit(UNKNOWN) from error
    alarms = list(_alarms(view, max_age))
    code = _ALARM if alarms else 0
    _say(code, "; ".join(alarms) or "nothing is late, nothing is dead", view, json=json)
    raise typer.Exit(code)


def _alarms(view: StatsView, max_age_seconds: float) -> Iterator[str]:
    if view.dead:
        yield f"{view.dead} dead (see `outbox list --state dead`)"
    oldest = view.oldest_pending_seconds
    if oldest is not None and oldest > max_age_seconds:
        delivery = view.delivery
        reason = f" ({delivery.reason})" if delivery and delivery.reason else ""
        state = delivery.state if delivery else "unknown"
        yield (
            f"the oldest pending row is {spoken_duration(oldest)} old, more than "
            f"{spoken_duration(max_age_seconds)}; delivery {state}{reason}"
        )


def _say(code: int, words: str, view: StatsView | None, *, json: bool) -> None:
    if json:
        print_json({"code": code, "status": _WORDS[code], "message": words, "stats": view})
        return
    figures = "" if view is None else f" | {_performance_data(view)}"
    typer.echo(f"OUTBOX {_WORDS[code]} - {words}{figures}")


def _performance_data(view: StatsView) -> str:
    oldest = view.oldest_pending_seconds or 0.0
    return (
        f"pending={view.pending} delivering={view.delivering} delivered={view.delivered} "
        f"dead={view.dead} oldest_pending={oldest:.1f}s rate={view.rate:.1f}"
    )


async def _stats(url: str) -> Stats:
    async with open_inspector(url) as outbox:
        return await outbox.stats()
