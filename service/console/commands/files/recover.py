"""`outbox recover FILE`: what can be read of a damaged SQLite outbox, in a new file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.bootstrap.operations import recover_file
from service.console.terminal.command import DEFAULT_URL, Url, exit_on_fault
from service.console.terminal.options import Json
from service.console.terminal.tables import print_json, progress_bar

File = Annotated[Path, typer.Argument(metavar="FILE", help="The new file; it must not exist.")]


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
            f"Copied {found.rows:,} rows to {file}, {found.without_state:,} of them without their "
            f"state. {found.lost:,} rows can't be read."
        )
    if found.lost:
        raise typer.Exit(1)
