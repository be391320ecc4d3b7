"""How often a command that follows the outbox looks at it."""

from __future__ import annotations

from typing import Annotated

import typer

from service.console.commands.options import duration

_LEAST_SECONDS = 0.1

Interval = Annotated[
    float,
    typer.Option("--interval", parser=duration, metavar="DURATION", help="Between two looks."),
]


def least(interval_seconds: float) -> float:
    """The interval, but not so short that the looks do nothing else."""
    return max(interval_seconds, _LEAST_SECONDS)
