"""`outbox check`: one line and an exit code for monitoring, as a Nagios plugin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from inngest_outbox.bootstrap.operations import (
    file_faults,
    is_served,
    known_names,
    needed_keys,
    open_reading,
    service_status,
)
from inngest_outbox.console.operations.alarm import Alarm, Severity, alarms
from inngest_outbox.console.operations.key_needs import KeyNeeds
from inngest_outbox.console.operations.views import PAUSED, StatsView, stats_view
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url
from inngest_outbox.console.terminal.options import Json, duration
from inngest_outbox.console.terminal.tables import print_json
from inngest_outbox.errors import ServiceError
from inngest_outbox.observe.printable import printable, printable_lines
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.runs.figures import KeptNames

_KEYS = "OUTBOX_ENCRYPTION_KEY"


class CheckCommand(TyperCommand):
    """The command of `check`: with arguments that it does not know, it can't tell."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperCommand. Exits with 3 on any fault of the arguments."""
        with _unknown(json="--json" in args):
            return super().parse_args(ctx, args)


@contextlib.contextmanager
def _unknown(*, json: bool) -> Iterator[None]:
    """End with 3 on any error. One that was not foreseen has its traceback on standard error."""
    try:
        yield
    except typer.Exit:
        raise
    except typer.TyperException as error:
        words = error.format_message()
    except ServiceError as error:
        words = " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001
        typer.echo(printable_lines(traceback.format_exc()), err=True)
        words = f"an unforeseen {type(error).__name__}"
    else:
        return
    _say(Severity.UNKNOWN, printable(words), None, json=json)
    raise typer.Exit(Severity.UNKNOWN)


MaxAge = Annotated[
    float,
    typer.Option(
        "--max-age",
        parser=duration,
        metavar="DURATION",
        help="Warn when a due row has waited longer.",
    ),
]
CriticalAge = Annotated[
    float,
    typer.Option(
        "--critical-age",
        parser=duration,
        metavar="DURATION",
        help="Critical when a due row has waited longer.",
    ),
]


def check(
    *,
    max_age: MaxAge = "5m",  # type: ignore[assignment]
    critical_age: CriticalAge = "1h",  # type: ignore[assignment]
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Check for monitoring: one line and a Nagios exit code.

    0: all is well. 1, warning: a due row has waited longer than --max-age, a dead row exists,
    delivery is not healthy though rows wait, confirmation fails, events that should start runs
    start none, or waiting events need a key that OUTBOX_ENCRYPTION_KEY, where it is set, lacks. 2,
    critical: a due row has waited longer than --critical-age, the configuration is refused, or no
    event can be stored. 3: it can't tell.

    Example: `outbox check --max-age 10m --critical-age 2h`
    """
    with _unknown(json=json):
        view, faults, names, keys = asyncio.run(_ask(url))
    found = alarms(
        view,
        faults,
        max_age_seconds=max_age,
        critical_age_seconds=critical_age,
        without_runs=names.missing_runs(wall_now_ms()),
        keys=keys,
    )
    severity = max((alarm.severity for alarm in found), default=Severity.OK)
    words = [_words(found) or _calm(view), keys.words if keys else ""]
    _say(severity, "; ".join(filter(None, words)), view, json=json)
    raise typer.Exit(severity)


def _words(found: list[Alarm]) -> str:
    worst_first = sorted(found, key=lambda alarm: -alarm.severity)
    return "; ".join(alarm.words for alarm in worst_first)


def _calm(view: StatsView) -> str:
    """The lines without an alarm. A pause is named even while no event waits."""
    delivery = view.delivery
    paused = delivery.reason if delivery.state == PAUSED else None
    return "nothing is late, nothing is dead" + (f"; delivery is {paused}" if paused else "")


def _say(severity: Severity, words: str, view: StatsView | None, *, json: bool) -> None:
    if json:
        status = {"code": severity.value, "status": severity.name, "message": words}
        print_json({**status, "stats": view})
        return
    figures = "" if view is None else f" | {_performance_data(view)}"
    said = printable(words).replace("|", "/")  # what follows a bar is figures, for Nagios
    typer.echo(f"OUTBOX {severity.name} - {said}{figures}")


def _performance_data(view: StatsView) -> str:
    oldest = view.oldest_pending_seconds or 0.0
    return (
        f"pending={view.pending} delivering={view.delivering} sent={view.sent} "
        f"delivered={view.delivered} dead={view.dead} "
        f"oldest_pending={oldest:.1f}s rate={view.rate:.1f}"
    )


async def _ask(url: str) -> tuple[StatsView, list[str], KeptNames, KeyNeeds | None]:
    async with open_reading(url) as outbox:
        view = stats_view(await outbox.inspector.stats(), serving=is_served(url))
    status = await service_status(url)
    failure = status.failure if status else None
    faults = [failure] if failure else await file_faults(url)
    given = os.environ.get(_KEYS, "")
    keys = await needed_keys(url, given.split(",")) if given.strip() else None
    return view, faults, await known_names(url), keys
