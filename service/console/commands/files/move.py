"""`outbox move --to URL`: copies the whole outbox into another store."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from service.bootstrap.operations import move_outbox
from service.config.outbox_url import sqlite_path
from service.console.terminal.command import DEFAULT_URL, Url, exit_on_fault
from service.console.terminal.options import Actor, Json, actor_name
from service.console.terminal.tables import print_json, progress_bar
from service.errors import OutboxNotFoundError


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

    Stop the service first. The command compares count and checksum at the end. Then set OUTBOX_URL
    to the new address and start the service; the old outbox keeps its events and takes no more. A
    move that was interrupted begins again.

    Example: `outbox move --to postgresql://outbox@db/outbox`
    """
    with exit_on_fault(), progress_bar("moving") as progress:
        moved = move_outbox(url, to, actor=actor_name(actor), progress=progress)
    if json:
        print_json(msgspec.to_builtins(moved))
        return
    total = moved.total
    typer.echo(
        f"Wrote {moved.written:,} rows. The target holds {total.rows:,}: {total.pending:,} "
        f"pending, {total.sent:,} sent, {total.delivered:,} delivered, {total.dead:,} dead "
        f"(checksum {total.checksum[:16]})."
    )
    typer.echo("Count and checksum agree: the move is finished.")
