"""`outbox move --to URL`: copies the whole outbox into another store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from service.bootstrap.transfer import move_outbox
from service.config.outbox_url import sqlite_path
from service.console.terminal.address import DEFAULT_URL, Url
from service.console.terminal.command import ABSENT, exit_on_fault
from service.console.terminal.options import Actor, Json, actor_name
from service.console.terminal.tables import print_json
from service.errors import OutboxNotFoundError
from service.outbox.move.transfer import Missing

_SHOWN = 20


def _address(url: str) -> str:
    """An outbox's address. Raises typer.BadParameter."""
    try:
        sqlite_path(url)
    except OutboxNotFoundError as error:
        raise typer.BadParameter(
            "write sqlite:///path/to/file or postgresql://host/database"
        ) from error
    return url


To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="URL",
        callback=_address,
        help="The other outbox; empty, or not created yet.",
    ),
]


def move(*, to: To, url: Url = DEFAULT_URL, actor: Actor = None, json: Json = False) -> None:
    """Copy every event with its id, state, history and key to another outbox, and verify it.

    While the service runs, this copies ahead and exits with 1. Stop the service and give the same
    command again: it copies the rest, compares count and checksum, and exits with 0. Then set
    OUTBOX_URL to the new address and start the service; the old outbox keeps its events and takes
    no more. You can interrupt and repeat a move until it has finished.

    A damaged outbox may have rows whose events are gone. They can't be moved: the command names
    them and exits with 1, also when the move is finished.

    Example: `outbox move --to postgresql://outbox@db/outbox`
    """
    with exit_on_fault(), _progress() as progress:
        moved = move_outbox(url, to, actor=actor_name(actor), progress=progress)
    if json:
        print_json(msgspec.to_builtins(moved))
    else:
        total = moved.total
        typer.echo(
            f"Wrote {moved.written:,} rows. The target holds {total.rows:,}: "
            f"{total.pending:,} pending, {total.delivered:,} delivered, {total.dead:,} dead "
            f"(checksum {total.checksum[:16]})."
        )
        if moved.missing.rows:
            typer.echo(_named(moved.missing))
        typer.echo(
            "Count and checksum agree: the move is finished."
            if moved.finished
            else "The source is being served. Stop its service and move again to finish."
        )
    if moved.missing.rows or not moved.finished:
        raise typer.Exit(ABSENT)


def _named(missing: Missing) -> str:
    """How many rows were not moved, why, and which."""
    shown = [f"{row.seq} ({row.state})" for row in missing.first[:_SHOWN]]
    if rest := missing.rows - len(shown):
        shown.append(f"and {rest:,} more")
    return (
        f"{missing.rows:,} {'row was' if missing.rows == 1 else 'rows were'} not moved: the source "
        f"is damaged and lacks a part of each. Their numbers: {', '.join(shown)}. Only a backup "
        "may have their events."
    )


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A counter on a terminal, nothing elsewhere."""
    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("moving", total=None)
        yield lambda done: bar.update(task, completed=done)
