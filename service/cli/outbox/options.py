"""The options that the `outbox` commands share."""

from __future__ import annotations

import getpass
import os
import platform
from typing import Annotated

import typer

from service.config.outbox_url import url_in_schema
from service.config.settings import Settings
from service.config.values import parse_duration
from service.outbox.model import Filter, State

DEFAULT_URL: str = Settings.model_fields["outbox_url"].default


def duration(text: str) -> float:
    """Seconds of a duration such as `5m`. Raises typer.BadParameter."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    assert isinstance(seconds, float)  # noqa: S101
    return seconds


def in_schema(url: str) -> str:
    """The address with the schema that OUTBOX_SCHEMA names. Raises typer.BadParameter."""
    try:
        return url_in_schema(url, os.environ.get("OUTBOX_SCHEMA") or None)
    except ValueError as error:
        raise typer.BadParameter(f"OUTBOX_SCHEMA: {error}") from error


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="OUTBOX_URL",
        callback=in_schema,
        help="sqlite:///path/to/file or postgresql://host/database.",
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
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it. Without this, only say what would be done.")
]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The events' ids.")]
All = Annotated[
    bool, typer.Option("--all", help="All dead rows. Needed when there is no ID and no filter.")
]
Most = Annotated[int, typer.Option("--limit", min=1, help="At most this many rows.")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", help="The name in the audit.", show_default="you on this machine"),
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
