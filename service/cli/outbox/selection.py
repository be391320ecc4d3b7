"""The rows of a change: found first, shown, then changed by their ids."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from service.bootstrap.operations import open_inspector
from service.cli.outbox.command import ABSENT, UNKNOWN, run
from service.cli.outbox.tables import console, print_json, rows_table
from service.operations.bulk import late_rows
from service.operations.views import row_view
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, Row

_SHOWN = 20


def refuse_unless_chosen(wanted: Filter, *, every: bool) -> None:
    """Exit with 2 unless rows were chosen by ids, by a filter or by `every`."""
    chosen = (wanted.ids, wanted.user_id, wanted.name, wanted.reason, wanted.older_than_seconds)
    if not every and all(one is None for one in chosen):
        typer.echo("outbox: choose rows: give ids, a filter such as --reason, or --all.", err=True)
        raise typer.Exit(UNKNOWN)


def chosen_rows(url: str, wanted: Filter) -> list[Row]:
    """The rows that match. Exits with 1 when a given id is not among them."""
    rows = run(_rows(url, wanted))
    missing = set(wanted.ids or ()).difference(row.id for row in rows)
    if not missing:
        return rows
    others = run(_rows(url, Filter(ids=tuple(missing), limit=len(missing))))
    states = {row.id: row.state for row in others}
    for event_id in sorted(missing):
        why = f"it is {states[event_id]}" if event_id in states else "there is no such event"
        typer.echo(f"outbox: {event_id}: {why}. Nothing was changed.", err=True)
    raise typer.Exit(ABSENT)


def warn_of_limit(rows: Sequence[Row], limit: int) -> None:
    """Warn on standard error that more rows may match."""
    if len(rows) >= limit:
        typer.echo(
            f"The limit of {limit:,} rows is reached: more may match. "
            "Run the command again, or give a larger --limit.",
            err=True,
        )


def warn_of_horizon(rows: Sequence[Row]) -> None:
    """Warn on standard error how many rows may run a second time."""
    late = late_rows(rows, wall_now_ms())
    if late:
        typer.echo(
            f"{late} of them may first have been sent more than 24 h ago. Inngest has forgotten "
            "their ids: events that it took then run a second time.",
            err=True,
        )


def report(action: str, rows: Sequence[Row], done: list[str] | None, *, json: bool) -> None:
    """Say what was done to `rows`. With `done` None, say what would be done."""
    if json:
        ids = [row.id for row in rows] if done is None else done
        print_json({"action": action, "done": done is not None, "ids": ids})
    elif done is not None:
        _say_done(action, len(done), len(rows) - len(done))
    elif rows:
        _say_would(action, rows)
    else:
        typer.echo("No rows match; there is nothing to do.")


def _say_done(action: str, done: int, skipped: int) -> None:
    rest = f" {skipped} had changed meanwhile and were not touched." if skipped else ""
    past = {"replay": "Replayed", "discard": "Discarded"}[action]
    typer.echo(f"{past} {done} rows.{rest}")


def _say_would(action: str, rows: Sequence[Row]) -> None:
    console().print(rows_table([row_view(row) for row in rows[:_SHOWN]], wall_now_ms()))
    more = f" ({len(rows) - _SHOWN} more than are shown)" if len(rows) > _SHOWN else ""
    typer.echo(f"Would {action} {len(rows)} rows{more}. Nothing was changed: give --yes to do it.")


async def _rows(url: str, wanted: Filter) -> list[Row]:
    async with open_inspector(url) as outbox:
        return await outbox.rows(wanted)
