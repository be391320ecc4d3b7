"""The `outbox` commands that change rows: replay, discard, purge.

Each first looks, says what it would do, and does it only with --yes. The rows that were shown are
the rows that are changed: a change names their ids, in pages, so that it never holds up posts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from service.bootstrap.operations import open_inspector, open_repairs
from service.cli.outbox.options import (
    ABSENT,
    DEFAULT_URL,
    UNKNOWN,
    Actor,
    Json,
    OfName,
    OfReason,
    OfState,
    OfUser,
    OlderThan,
    Url,
    Yes,
    actor_name,
    duration,
    filter_of,
    run,
)
from service.cli.outbox.tables import console, print_json, rows_table
from service.operations.explain import past_horizon, spoken_duration
from service.operations.views import row_view
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, Row, State

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The events' ids.")]
All = Annotated[bool, typer.Option("--all", help="Every dead row; needed without ID or filter.")]
Most = Annotated[int, typer.Option("--limit", min=1, help="At most this many rows.")]
_PAGE = 500
_SHOWN = 20
_PURGE_COUNT = 10_000


def replay(
    ids: Ids = None,
    *,
    user: OfUser = None,
    name: OfName = None,
    reason: OfReason = None,
    older_than: OlderThan = None,
    every: All = False,
    limit: Most = 100_000,
    yes: Yes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Send dead events again, under the same ids; without --yes only say which.

    Inngest drops an id that it took within 24 h; for rows that may have left longer ago it has
    forgotten it, and their functions may run a second time.

    Examples: `outbox replay 019e… --yes`, `outbox replay --reason rejected`, `outbox replay --all`
    """
    wanted = filter_of(
        ids=tuple(ids) if ids else None,
        state=State.DEAD,
        user=user,
        name=name,
        reason=reason,
        older_than=older_than,
        limit=limit,
    )
    _refuse_unless_chosen(wanted, every=every)
    rows = _chosen(url, wanted)
    _warn_of_horizon(rows)
    done = run(_replay(url, rows, actor_name(actor))) if yes else None
    _report("replay", rows, done, json=json)


def discard(
    ids: Ids = None,
    *,
    state: OfState = None,
    user: OfUser = None,
    name: OfName = None,
    reason: OfReason = None,
    older_than: OlderThan = None,
    every: All = False,
    limit: Most = 100_000,
    yes: Yes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove events for good, delivered or not; without --yes only say which.

    Means dead rows unless ids or --state say otherwise. A row that is being sent stays.

    Examples: `outbox discard 019e… --yes`, `outbox discard --reason too_large --older-than 7d`
    """
    wanted = filter_of(
        ids=tuple(ids) if ids else None,
        state=state or (None if ids else State.DEAD),
        user=user,
        name=name,
        reason=reason,
        older_than=older_than,
        limit=limit,
    )
    _refuse_unless_chosen(wanted, every=every or state is not None)
    rows = [row for row in _chosen(url, wanted) if row.state is not State.DELIVERING]
    lost = sum(row.state is not State.DELIVERED for row in rows)
    if lost and not json:
        typer.echo(f"{lost} of them never reached Inngest, and will not.", err=True)
    done = run(_discard(url, rows, actor_name(actor))) if yes else None
    _report("discard", rows, done, json=json)


def purge(
    *,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than",
            parser=duration,
            metavar="DURATION",
            envvar="OUTBOX_RETENTION",
            help="Delivered longer ago than this.",
        ),
    ] = "7d",  # type: ignore[assignment]
    yes: Yes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove delivered rows; without --yes only say how many.

    The service does so by itself after OUTBOX_RETENTION. No other rows are touched.

    Example: `outbox purge --older-than 1d --yes`
    """
    if yes:
        gone = run(_purge(url, older_than, actor_name(actor)))
        if json:
            print_json({"action": "purge", "done": True, "rows": gone})
        else:
            typer.echo(f"Removed {gone} delivered rows.")
        return
    found = run(_settled_before(url, older_than))
    if json:
        print_json({"action": "purge", "done": False, "rows": found})
        return
    more = "more than " if found >= _PURGE_COUNT else ""
    typer.echo(
        f"Would remove {more}{found} rows delivered longer than {spoken_duration(older_than)} ago. "
        "Nothing was changed: say --yes to do it."
    )


def _refuse_unless_chosen(wanted: Filter, *, every: bool) -> None:
    chosen = (wanted.ids, wanted.user_id, wanted.name, wanted.reason, wanted.older_than_seconds)
    if not every and all(one is None for one in chosen):
        typer.echo("outbox: say which rows: ids, a filter such as --reason, or --all.", err=True)
        raise typer.Exit(UNKNOWN)


def _chosen(url: str, wanted: Filter) -> list[Row]:
    """The rows that match; every id that was given must be among them."""
    rows = run(_rows(url, wanted))
    missing = set(wanted.ids or ()).difference(row.id for row in rows)
    if not missing:
        return rows
    states = {
        row.id: row.state for row in run(_rows(url, Filter(ids=tuple(missing), limit=len(missing))))
    }
    for event_id in sorted(missing):
        why = f"it is {states[event_id]}" if event_id in states else "there is no such event"
        typer.echo(f"outbox: {event_id}: {why}. Nothing was changed.", err=True)
    raise typer.Exit(ABSENT)


def _warn_of_horizon(rows: Sequence[Row]) -> None:
    now_ms = wall_now_ms()
    late = sum(past_horizon(row, now_ms) for row in rows)
    if late:
        typer.echo(
            f"{late} of them may first have left more than 24 h ago: Inngest has forgotten their "
            "ids, so what it did take runs a second time.",
            err=True,
        )


def _report(action: str, rows: Sequence[Row], done: list[str] | None, *, json: bool) -> None:
    if json:
        ids = [row.id for row in rows] if done is None else done
        print_json({"action": action, "done": done is not None, "ids": ids})
        return
    if done is not None:
        skipped = len(rows) - len(done)
        rest = f" {skipped} had changed meanwhile and were left alone." if skipped else ""
        past = {"replay": "Replayed", "discard": "Discarded"}[action]
        typer.echo(f"{past} {len(done)} rows.{rest}")
        return
    if not rows:
        typer.echo("No rows match; there is nothing to do.")
        return
    now_ms = wall_now_ms()
    console().print(rows_table([row_view(row) for row in rows[:_SHOWN]], now_ms))
    more = f" ({len(rows) - _SHOWN} more than are shown)" if len(rows) > _SHOWN else ""
    typer.echo(f"Would {action} {len(rows)} rows{more}. Nothing was changed: say --yes to do it.")


async def _rows(url: str, wanted: Filter) -> list[Row]:
    async with open_inspector(url) as outbox:
        return await outbox.rows(wanted)


async def _settled_before(url: str, older_than_seconds: float) -> int:
    before_ms = int((time.time() - older_than_seconds) * 1000)
    wanted = Filter(
        state=State.DELIVERED, older_than_seconds=older_than_seconds, limit=_PURGE_COUNT
    )
    rows = await _rows(url, wanted)
    return sum((row.settled_at_ms or 0) <= before_ms for row in rows)


async def _replay(url: str, rows: Sequence[Row], actor: str) -> list[str]:
    done: list[str] = []
    async with open_repairs(url) as outbox:
        for page in _pages(rows):
            done += await outbox.replay(Filter(ids=page, limit=_PAGE), actor=actor)
    return done


async def _discard(url: str, rows: Sequence[Row], actor: str) -> list[str]:
    done: list[str] = []
    async with open_repairs(url) as outbox:
        for state in {row.state for row in rows}:
            for page in _pages([row for row in rows if row.state is state]):
                wanted = Filter(ids=page, state=state, limit=_PAGE)
                done += await outbox.discard(wanted, actor=actor)
    return done


async def _purge(url: str, older_than_seconds: float, actor: str) -> int:
    async with open_repairs(url) as outbox:
        return await outbox.purge(older_than_seconds=older_than_seconds, actor=actor)


def _pages(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    ids = [row.id for row in rows]
    return [tuple(ids[start : start + _PAGE]) for start in range(0, len(ids), _PAGE)]
