"""`outbox backup`, `recover` and `move`: an outbox copied into a new file or another store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from inngest_outbox.bootstrap.operations import back_up, move_outbox, recover_file
from inngest_outbox.config.outbox_url import sqlite_path
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, exit_on_fault, in_schema
from inngest_outbox.console.terminal.options import Actor, Json, actor_name
from inngest_outbox.console.terminal.tables import print_json, progress_bar
from inngest_outbox.errors import OutboxNotFoundError

File = Annotated[Path, typer.Argument(metavar="FILE", help="The new file; it must not exist.")]


def backup(file: File, *, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Copy the outbox to FILE, while the service runs or not; no request waits for the copy.

    To restore: stop the service, move the outbox's file away together with its -wal and -shm, put
    FILE in its place (or name it in OUTBOX_URL) and start the service. Events that were delivered
    after the backup are sent again under their ids; Inngest ignores those it took within 24 h.

    Example: `outbox backup /backups/outbox-$(date +%F).db`
    """
    with exit_on_fault(), progress_bar("copying") as progress:
        size_bytes = back_up(url, file, progress)
    if json:
        print_json({"file": str(file), "bytes": size_bytes})
    else:
        typer.echo(f"Copied {counted(size_bytes, 'byte')} to {file}.")


def recover(file: File, *, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Copy what can be read of a damaged outbox to FILE. Stop the service first.

    Then start the service on FILE (OUTBOX_URL). An event whose state can't be read is delivered
    again under its id. The damaged file stays as it is. Exits 1 when rows are lost.

    Example: `outbox recover /data/recovered.db`
    """
    with exit_on_fault(), progress_bar("copying") as progress:
        found = recover_file(url, file, progress)
    if json:
        print_json({"rows": found.rows, "withoutState": found.without_state, "lost": found.lost})
    else:
        typer.echo(
            f"Copied {counted(found.rows, 'row')} to {file}, {found.without_state:,} of them "
            f"without their state. {counted(found.lost, 'row')} can't be read."
        )
    if found.lost:
        raise typer.Exit(1)


def _address(url: str) -> str:
    """An outbox's address, in its schema. Raises typer.BadParameter."""
    try:
        sqlite_path(url)
    except OutboxNotFoundError as error:
        raise typer.BadParameter(
            "write sqlite:///path/to/file or postgresql://host/database"
        ) from error
    return in_schema(url)


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
        f"Wrote {counted(moved.written, 'row')}. The target holds {total.rows:,}: "
        f"{total.pending:,} pending, {total.sent:,} sent, {total.delivered:,} delivered, "
        f"{total.dead:,} dead (checksum {total.checksum[:16]})."
    )
    typer.echo("Count and checksum agree: the move is finished.")
