"""`outbox backup FILE`: a consistent copy of an SQLite outbox, served or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.bootstrap.operations import back_up
from service.console.terminal.command import DEFAULT_URL, Url, exit_on_fault
from service.console.terminal.options import Json
from service.console.terminal.tables import print_json, progress_bar

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
        typer.echo(f"Copied {size_bytes:,} bytes to {file}.")
