"""The options that the `outbox` commands share."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import getpass
import inspect
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from inngest_outbox.bootstrap.operations import open_reading
from inngest_outbox.config.values import parse_duration
from inngest_outbox.console.terminal.command import DEFAULT_URL, in_schema
from inngest_outbox.errors import ServiceError
from inngest_outbox.identity.user import (
    AUTH_JS_ISSUER,
    DEV_ISSUER,
    NEXT_AUTH_ISSUER,
    SHARED_ISSUER,
    SQL_ISSUER,
)
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Filter, Row, State

Issuer = Annotated[
    str | None,
    typer.Option(
        "--issuer",
        help="Only the user of this issuer.",
        show_default="OIDC_ISSUER, the development sign-in and shared ids",
    ),
]
MOST_ROWS = 1_000_000_000
_MOST_SEQ = 10**18
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_OFFERED = 30
_SECONDS = 2.0


def complete_ids(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The newest ids that begin so, each with its state and name. `replay` is offered dead ones."""
    state = State.DEAD if ctx.info_name == "replay" else None
    wanted = Filter(id_prefix=incomplete or None, state=state, limit=_MAX_OFFERED)
    given = ctx.params.get("url") or os.environ.get("OUTBOX_URL") or DEFAULT_URL
    try:
        rows = asyncio.run(_rows(in_schema(given), wanted))
    except (ServiceError, TimeoutError, UnicodeEncodeError, typer.BadParameter):
        return
    for row in rows:
        yield row.id, printable(f"{row.state} {row.name} {row.reason or ''}".rstrip())


async def _rows(url: str, wanted: Filter) -> list[Row]:
    async with asyncio.timeout(_SECONDS), open_reading(url) as outbox:
        return await outbox.inspector.rows(wanted)


def duration(text: str) -> float:
    """Seconds of a duration such as `5m`. Raises typer.BadParameter."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


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
Limit = Annotated[
    int, typer.Option("--limit", min=1, max=MOST_ROWS, help="At most this many rows.")
]
Cursor = Annotated[
    int | None,
    typer.Option(
        "--cursor",
        min=1,
        max=_MOST_SEQ,
        help="Continue below these rows; the list before names it.",
    ),
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
    """The choice of rows; every given option must match."""

    user: OfUser = None
    name: OfName = None
    reason: OfReason = None
    since: Since = None
    until: Until = None

    @property
    def are_given(self) -> bool:
        """True when any of the options is given."""
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
            since_ms=self.since,
            until_ms=self.until,
            limit=limit,
        )


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """The manner of a change of many rows."""

    every: All = False
    limit: Limit = 100_000
    yes: Yes = False
    actor: Actor = None


def actor_name(given: str | None) -> str:
    """The name for the audit: `given`, else the user of this process with the machine's name."""
    if given:
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{platform.node()}"


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose arguments of a dataclass's type are given as an option for each field."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation
        for name, one in signature.parameters.items()
        if dataclasses.is_dataclass(one.annotation)
    }

    @functools.wraps(command)
    def grouped(**given: Any) -> None:
        made = {
            name: kind(**{field: given.pop(field) for field in _fields(kind)})
            for name, kind in groups.items()
        }
        command(**given, **made)

    parameters = list(_expanded(signature))
    grouped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return grouped


def _expanded(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    for one in signature.parameters.values():
        if dataclasses.is_dataclass(one.annotation):
            for field in _fields(one.annotation).values():
                yield field.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        else:
            yield one


def _fields(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind, eval_str=True).parameters


def parse_moment(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a moment: a duration ago, or an ISO date and time.

    A time without an offset is in UTC. Raises ValueError.

    >>> parse_moment("90s", 1795559419447)
    1795559329447
    >>> parse_moment("2026-11-24", 0), parse_moment("2026-11-24 22:30:19+01:00", 0)
    (1795478400000, 1795555819000)
    """
    try:
        seconds = parse_duration(text)
    except ValueError:
        return _time_ms(text)
    return now_ms - round(seconds * 1000)


def _time_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (zoned.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:  # beyond the years 1 to 9999
        raise ValueError(
            "write how long ago, such as 10m or 7d, or a time, such as 2026-11-24T22:30 (UTC)"
        ) from error


def owners_of(user_id: str, issuer: str | None) -> list[str]:
    """The owners that a user's id may mean: of `issuer`, else of each issuer of this service."""
    configured = os.environ.get("OIDC_ISSUER", "").strip()
    own = [*([configured] if configured else []), DEV_ISSUER, SHARED_ISSUER]
    return [f"{one.rstrip('/')} {user_id}" for one in ([issuer] if issuer else own)]


def owners_elsewhere(user_id: str) -> list[str]:
    """The owners that a user's id may mean of issuers with another sign-in than this service's."""
    tokens = os.environ.get("JWT_ISSUER", "").strip().rstrip("/")
    issuers = [*filter(None, [tokens]), NEXT_AUTH_ISSUER, AUTH_JS_ISSUER, SQL_ISSUER]
    return [f"{one} {user_id}" for one in issuers]
