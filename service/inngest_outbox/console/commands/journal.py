"""`outbox journal`: what is in the journal's bucket, and bringing it back."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer

from inngest_outbox.bootstrap.operations import open_journal_desk, open_journal_look
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.terminal.command import ABSENT, DEFAULT_URL, Url, exit_on_fault, run
from inngest_outbox.console.terminal.options import Json, Yes
from inngest_outbox.console.terminal.tables import print_json
from inngest_outbox.journal.comparison import StartView
from inngest_outbox.outbox.sqlite.file.journalled import Restored

Restore = Annotated[
    list[str] | None,
    typer.Option(
        "--restore", metavar="ID", help="Bring back the events under this id, whoever put them."
    ),
]


def journal(
    *,
    restore: Restore = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show what is in the journal, by the starts that put it; with --restore bring it back.

    A start brings back by itself what its file has never had. What it left alone, because another
    outbox runs or the events are for another Inngest, comes back by --restore with --yes.

    Example: `outbox journal --restore 5f3c0a9be1d2 --yes`
    """
    with exit_on_fault():
        settings = Settings.load({**os.environ, "OUTBOX_URL": url})
    starts = run(_starts(settings))
    chosen = [one for one in starts if restore is None or one.id in restore]
    done = None
    if restore and yes:
        done = run(_restore(settings, restore))
    if json:
        print_json(
            {
                "starts": msgspec.to_builtins(chosen),
                "restored": None if done is None else msgspec.to_builtins(done),
            }
        )
    else:
        _say(chosen, done, restores=bool(restore))
    if restore and len(chosen) < len(set(restore)):
        raise typer.Exit(ABSENT)


def _say(starts: list[StartView], done: Restored | None, *, restores: bool) -> None:
    if not starts:
        typer.echo("There is nothing of that in the journal.")
    for one in starts:
        whose = "this file's" if one.ours else "another file's"
        live = ", runs or was killed" if one.live else ""
        typer.echo(
            f"{one.id}  {whose}{live}: {counted(one.objects, 'object')}, "
            f"{counted(one.bytes, 'byte')}; {counted(one.unknown, 'event')} that this file has "
            "never had"
        )
    if done:
        typer.echo(
            f"Brought back {done.pending:,} pending and {counted(done.dead, 'dead event')}; "
            f"{done.old:,} are older than Inngest remembers and may run twice."
        )
    elif restores:
        typer.echo("Nothing was changed: give --yes to do it.")


async def _starts(settings: Settings) -> list[StartView]:
    async with open_journal_look(settings) as look:
        return await look.starts()


async def _restore(settings: Settings, ids: list[str]) -> Restored:
    async with open_journal_desk(settings) as desk:
        return await desk.restore(ids)
