"""The options that the `outbox` commands share."""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import dataclass
from typing import Annotated

import typer

from service.config.values import parse_duration
from service.console.commands.completion import complete_ids
from service.console.operations.moments import parse_moment
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, State


def duration(text: str) -> float:
    """Seconds of a duration such as `5m`. Raises typer.BadParameter."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    assert isinstance(seconds, float)  # noqa: S101
    return seconds


def moment(text: str) -> int:
    """Milliseconds since 1970 of a moment such as `2h` (ago) or a date and time.

    Raises typer.BadParameter.
    """
    try:
        return parse_moment(text, wall_now_ms())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def state_named(text: str) -> State:
    """The state of this name, in any case. Raises typer.BadParameter."""
    try:
        return State(text.strip().lower())
    except ValueError as error:
        raise typer.BadParameter(f"write one of {', '.join(State)}") from error


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EventId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The event's id, how it begins, or its id in Inngest.",
        autocompletion=complete_ids,
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="The events' ids, how they begin, or their ids in Inngest.",
        autocompletion=complete_ids,
    ),
]
OfState = Annotated[
    State | None,
    typer.Option(
        "--state",
        parser=state_named,
        metavar="STATE",
        autocompletion=lambda: list(State),
        help=f"Only rows in this state: {', '.join(State)}.",
    ),
]
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
Since = Annotated[
    int | None,
    typer.Option(
        "--since",
        parser=moment,
        metavar="TIME",
        help="Only rows accepted since then: 2h (ago), or 2026-11-24T22:30 (UTC).",
    ),
]
Until = Annotated[
    int | None,
    typer.Option(
        "--until", parser=moment, metavar="TIME", help="Only rows accepted before then; as --since."
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many rows.")]
Cursor = Annotated[
    int | None,
    typer.Option("--cursor", min=1, help="Go on below these rows, as the list before said."),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it. Without this, only say what would be done.")
]
All = Annotated[
    bool, typer.Option("--all", help="All dead rows. Needed when there is no ID and no filter.")
]
Actor = Annotated[
    str | None,
    typer.Option("--actor", help="The name in the audit.", show_default="you on this machine"),
]


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Which rows; every given option must match."""

    user: OfUser = None
    name: OfName = None
    reason: OfReason = None
    older_than: OlderThan = None
    since: Since = None
    until: Until = None

    @property
    def are_given(self) -> bool:
        """Whether any of the options is given."""
        return self != RowOptions()

    def filter(
        self, *, limit: int, state: State | None = None, ids: tuple[str, ...] | None = None
    ) -> Filter:
        """The filter that the options give."""
        return Filter(
            ids=ids,
            state=state,
            user_id=self.user,
            name=self.name,
            reason=self.reason,
            older_than_seconds=self.older_than,
            since_ms=self.since,
            until_ms=self.until,
            limit=limit,
        )


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """How a change of many rows is made."""

    every: All = False
    limit: Limit = 100_000
    yes: Yes = False
    actor: Actor = None


def actor_name(given: str | None) -> str:
    """Who the audit names: `given`, else the user of this process with the machine's name."""
    if given:
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{platform.node()}"
