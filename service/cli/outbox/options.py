"""The options that the `outbox` commands share, and how a command runs and fails.

Exit codes: 0 done, 1 what was asked for is not there (or an alarm, in `check`), 2 it can't be told
or done. Every failure is one sentence on standard error, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import platform
from collections.abc import Coroutine, Iterator
from typing import Annotated, Any, TypeVar

import typer

from service.config.settings import Settings
from service.config.values import parse_duration
from service.errors import ServiceError
from service.outbox.model import Filter, State

ABSENT, UNKNOWN = 1, 2
DEFAULT_URL: str = Settings.model_fields["outbox_url"].default

T = TypeVar("T")


def duration(text: str) -> float:
    """Seconds of a duration such as `5m`. Raises typer.BadParameter."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    assert isinstance(seconds, float)  # noqa: S101
    return seconds


Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="OUTBOX_URL", help="sqlite:///path/to/file or postgresql://host/database."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EventId = Annotated[str, typer.Argument(metavar="ID", help="The event's id.")]
OfState = Annotated[State | None, typer.Option("--state", help="Only rows in this state.")]
OfUser = Annotated[str | None, typer.Option("--user", help="Only rows of this user id.")]
OfName = Annotated[str | None, typer.Option("--name", help="Only rows with this event name.")]
OfReason = Annotated[
    str | None, typer.Option("--reason", help="Only dead rows with this reason, e.g. rejected.")
]
OlderThan = Annotated[
    float | None,
    typer.Option(
        "--older-than",
        parser=duration,
        metavar="DURATION",
        help="Only rows accepted longer ago, e.g. 10m, 2h, 7d.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many rows.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, only say what would.")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", help="Who is named in the audit.", show_default="you on this machine"),
]


def actor_name(given: str | None) -> str:
    """Who the audit names: `given`, else the user of this process with the machine's name."""
    if given:
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{platform.node()}"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; a fault becomes a sentence and exit code 2."""
    with exit_on_fault():
        return asyncio.run(work)


@contextlib.contextmanager
def exit_on_fault() -> Iterator[None]:
    """Turn our own errors into a sentence on standard error and exit code 2."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"outbox: {error}", err=True)
        raise typer.Exit(UNKNOWN) from error


def not_found(event_id: str) -> typer.Exit:
    """Say that there is no such event; to be raised."""
    typer.echo(f"outbox: there is no event {event_id} in this outbox.", err=True)
    return typer.Exit(ABSENT)


def filter_of(
    *,
    state: State | None,
    user: str | None,
    name: str | None,
    reason: str | None,
    older_than: float | None,
    limit: int,
    ids: tuple[str, ...] | None = None,
) -> Filter:
    """The filter that the options give."""
    return Filter(
        ids=ids,
        state=state,
        user_id=user,
        name=name,
        reason=reason,
        older_than_seconds=older_than,
        limit=limit,
    )
