"""The rows of a change: found first, shown, then changed by their ids."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import typer

from inngest_outbox.bootstrap.operations import open_reading, open_writing
from inngest_outbox.console.operations.bulk import (
    Action,
    change_rows,
    changes_of,
    find_all,
    late_rows,
)
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.operations.search import FoundIds, Search, SearchPolicy, find_ids
from inngest_outbox.console.operations.views import row_view
from inngest_outbox.console.terminal.command import ABSENT, UNKNOWN, run, unambiguous
from inngest_outbox.console.terminal.options import ChangeOptions, RowOptions, actor_name
from inngest_outbox.console.terminal.tables import (
    console,
    print_json,
    progress_bar,
    row_list,
    searched_to,
    show_lines,
)
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.audit import act_of
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Filter, Row
from inngest_outbox.outbox.parts import ReadParts

_SHOWN = 20
_TOLD_OFTEN = SearchPolicy(budget_seconds=2.0)


def refuse_unless_chosen(ids: Sequence[str] | None, rows: RowOptions, *, every: bool) -> None:
    """Exit with 2 unless rows were chosen by ids, none empty, by a filter or by `every`."""
    if ids and "" in ids:
        typer.echo("outbox: an id is empty. Nothing was changed.", err=True)
        raise typer.Exit(UNKNOWN)
    if not (every or ids or rows.are_given):
        typer.echo("outbox: choose rows: give ids, a filter such as --reason, or --all.", err=True)
        raise typer.Exit(UNKNOWN)


def chosen_rows(url: str, wanted: Filter) -> list[Row]:
    """The rows that match; `wanted.ids` may be beginnings of ids.

    Exits with 1 when a given id is not among them, with 2 when a beginning is of several ids.
    """
    rows, given = run(_chosen(url, wanted))
    unambiguous(given)
    found = {row.id for row in rows}
    others = [row for row in given.rows if row.id not in found]
    for event_id in given.unknown:
        _refuse(event_id, "there is no such event")
    for row in others:
        is_other = wanted.state is not None and row.state is not wanted.state
        _refuse(row.id, f"it is {row.state}" if is_other else "it does not match the filter")
    if given.unknown or others:
        raise typer.Exit(ABSENT)
    return rows


def warn_of_limit(rows: Sequence[Row], limit: int) -> None:
    """Warn on standard error that more rows may match."""
    if len(rows) >= limit:
        typer.echo(
            f"The limit of {counted(limit, 'row')} is reached: more may match. "
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


async def told_rows(outbox: ReadParts, wanted: Filter) -> list[Row]:
    """All rows that match. Every 2 s it says on standard error how far the search has gone."""
    search = Search(outbox.inspector, outbox.positions, _TOLD_OFTEN)
    return await find_all(search, wanted, _say_found)


def _say_found(count: int, back_to_ms: int) -> None:
    typer.echo(searched_to(back_to_ms, f"{counted(count, 'row')} found"), err=True)


def change_chosen(
    action: Action,
    url: str,
    rows: Sequence[Row],
    wanted: Filter,
    how: ChangeOptions,
    *,
    per_minute: int | None = None,
    json: bool,
) -> None:
    """Change the rows and say so; without --yes, only say what would be done."""
    done = None
    if how.yes:
        done = run(_change(action, url, rows, wanted, actor_name(how.actor), per_minute))
    if json:
        ids = [row.id for row in rows] if done is None else done
        print_json({"action": action, "done": done is not None, "ids": ids})
    elif done is not None:
        _say_done(action, len(done), len(rows) - len(done))
    elif rows:
        _say_would(action, rows)
    else:
        typer.echo("No rows match; there is nothing to do.")


async def _change(
    action: Action,
    url: str,
    rows: Sequence[Row],
    wanted: Filter,
    actor: str,
    per_minute: int | None,
) -> list[str]:
    with progress_bar(f"{action}ing") as progress:
        async with open_writing(url) as outbox:
            return await change_rows(
                changes_of(outbox.repairs)[action],
                rows,
                actor=actor,
                act=act_of(wanted),
                told=progress,
                per_minute=per_minute,
            )


def _refuse(event_id: str, why: str) -> None:
    typer.echo(f"outbox: {printable(event_id)}: {why}. Nothing was changed.", err=True)


def _say_done(action: Action, done: int, skipped: int) -> None:
    rest = f" {counted(skipped, 'row')} had changed meanwhile: left alone." if skipped else ""
    past = {Action.REPLAY: "Replayed", Action.DISCARD: "Discarded"}[action]
    typer.echo(f"{past} {counted(done, 'row')}.{rest}")


def _say_would(action: Action, rows: Sequence[Row]) -> None:
    shown = [row_view(row) for row in rows[:_SHOWN]]
    show_lines(row_list(shown, wall_now_ms(), console().width))
    part = f" ({len(shown)} of {len(rows):,} are shown)" if len(rows) > len(shown) else ""
    typer.echo(
        f"Would {action} {counted(len(rows), 'row')}{part}. "
        "Nothing was changed: give --yes to do it."
    )


async def _chosen(url: str, wanted: Filter) -> tuple[list[Row], FoundIds]:
    async with open_reading(url) as outbox:
        given = await find_ids(outbox.inspector, wanted.ids or ())
        if wanted.ids is not None:
            wanted = msgspec.structs.replace(wanted, ids=tuple(row.id for row in given.rows))
        return await told_rows(outbox, wanted), given
