"""The `outbox` commands that look: stats, list, show, audit. They change nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from service.bootstrap.operations import is_served, open_inspector
from service.cli.outbox import tables
from service.cli.outbox.options import (
    DEFAULT_URL,
    EventId,
    Json,
    Limit,
    OfName,
    OfReason,
    OfState,
    OfUser,
    OlderThan,
    Url,
    filter_of,
    not_found,
    run,
)
from service.operations.explain import explain, spoken_time
from service.operations.views import row_view, stats_view
from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Filter, Row, Stats

Payload = Annotated[bool, typer.Option("--payload", help="Show the payload too: it is personal.")]


def stats(*, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the outbox in figures: rows by state, ages, the delivery, the rate, sizes.

    Example: `outbox stats --json`
    """
    view = stats_view(run(_stats(url)), serving=is_served(url))
    if json:
        tables.print_json(view)
    else:
        tables.console().print(tables.stats_table(view))


def list_rows(
    *,
    state: OfState = None,
    user: OfUser = None,
    name: OfName = None,
    reason: OfReason = None,
    older_than: OlderThan = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List rows, newest first. Every given filter must match.

    Examples: `outbox list --state dead`, `outbox list --user u-1 --older-than 10m --json`
    """
    wanted = filter_of(
        state=state, user=user, name=name, reason=reason, older_than=older_than, limit=limit
    )
    views = [row_view(row) for row in run(_rows(url, wanted))]
    if json:
        tables.print_json(views)
    elif views:
        tables.console().print(tables.rows_table(views, wall_now_ms()))
    else:
        typer.echo("No rows match.", err=True)


def show(
    event_id: EventId, *, payload: Payload = False, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Show one event: its row, its history, why it is where it is and what happens next.

    Example: `outbox show 019e…`
    """
    row, delivery, stored = run(_one(url, event_id, with_payload=payload))
    if row is None:
        raise not_found(event_id)
    why = explain(row, delivery, now_ms=wall_now_ms(), serving=is_served(url))
    view = row_view(row)
    if json:
        fields = {**msgspec.to_builtins(view), "explanation": why}
        shown = {"payload": msgspec.Raw(stored)} if stored is not None else {}
        tables.print_json({**fields, **shown})
        return
    tables.console().print(tables.row_table(view, why))
    if stored is not None:
        typer.echo(msgspec.json.format(stored, indent=2))


def audit(*, limit: Limit = 20, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show what operators did, newest first.

    Example: `outbox audit --limit 50`
    """
    actions = run(_audit(url, limit))
    if json:
        tables.print_json(actions)
        return
    for action in actions:
        at = action["at"]
        when = spoken_time(at) if isinstance(at, int) else ""
        words = f"{when}  {action['actor']}  {action['action']}  {action['detail']}"
        tables.console().print(tables.plain(words))


async def _stats(url: str) -> Stats:
    async with open_inspector(url) as outbox:
        return await outbox.stats()


async def _rows(url: str, wanted: Filter) -> list[Row]:
    async with open_inspector(url) as outbox:
        return await outbox.rows(wanted)


async def _one(
    url: str, event_id: str, *, with_payload: bool
) -> tuple[Row | None, DeliveryRecord | None, bytes | None]:
    async with open_inspector(url) as outbox:
        rows = await outbox.rows(Filter(ids=(event_id,), limit=1))
        stored = await outbox.payload(event_id) if with_payload else None
        return (rows[0] if rows else None), await outbox.load_delivery(), stored


async def _audit(url: str, limit: int) -> list[dict[str, object]]:
    async with open_inspector(url) as outbox:
        return await outbox.audit(limit)
