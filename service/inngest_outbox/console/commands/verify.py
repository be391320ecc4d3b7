"""`outbox verify`: ask Inngest whether it holds what was delivered."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer

from inngest_outbox.bootstrap.operations import open_reading, open_writing
from inngest_outbox.bootstrap.process import make_http
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.bulk import pages
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.operations.search import FoundIds, Search, find_ids
from inngest_outbox.console.operations.verification import Verification, verify
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, all_known, run, unambiguous
from inngest_outbox.console.terminal.options import (
    Actor,
    Json,
    Since,
    Until,
    actor_name,
    complete_ids,
)
from inngest_outbox.console.terminal.tables import print_json
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.rest_api import make_rest_api
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.audit import new_act
from inngest_outbox.outbox.model import Filter, Named, State

MISSING, CANNOT_TELL = 1, 3
_TIMEOUT_SECONDS = 30.0
_SHOWN = 20

OfIds = Annotated[
    list[str] | None,
    typer.Option(
        "--ids",
        metavar="ID",
        help="Only this event, by its id or how that begins; may be repeated.",
        autocompletion=complete_ids,
    ),
]
Runs = Annotated[bool, typer.Option("--runs", help="Ask what became of the runs, too.")]
Resend = Annotated[bool, typer.Option("--resend", help="Send again what is missing.")]


def verify_command(
    *,
    since: Since = None,
    until: Until = None,
    ids: OfIds = None,
    runs: Runs = False,
    resend: Resend = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Ask Inngest for each delivered event whether it holds it: held, missing or unknown.

    Reads the INNGEST_* variables as the service does. With --resend, what is missing is sent again
    under the same ids. Exit codes: 0 all are held; 1 some are missing; 2 they could not be sent
    again; 3 it can't tell.

    Examples: `outbox verify --since 1h`, `outbox verify --ids 019e… --runs`
    """
    wanted = Filter(ids=tuple(ids) if ids else None, since_ms=since, until_ms=until)
    try:
        found = run(_verify(url, wanted, with_runs=runs))
    except typer.Exit as error:
        raise typer.Exit(CANNOT_TELL) from error
    resent: list[str] | None = None
    try:
        if resend:
            resent = run(_resend(url, found.missing, actor_name(actor)))
    except typer.Exit:
        typer.echo("outbox: Not all that is missing was sent again.", err=True)
        raise
    finally:
        if json:
            fields = {"resent": resent, "payloadRemoved": _left(found, resent)}
            print_json({**msgspec.to_builtins(found), **fields})
        else:
            _say(found, resent)
    if found.missing:
        raise typer.Exit(MISSING)
    if found.unknown:
        raise typer.Exit(CANNOT_TELL)


def _left(found: Verification, resent: list[str] | None) -> int | None:
    """The number of missing events that can't be sent again, as their payloads were removed."""
    return None if resent is None else len(found.missing) - len(resent)


def _say(found: Verification, resent: list[str] | None) -> None:
    typer.echo(
        f"{counted(found.checked, 'delivered event')}: {found.held:,} held by Inngest, "
        f"{len(found.missing):,} missing, {len(found.unknown):,} unknown."
    )
    if found.reason:
        typer.echo(f"Unknown, because: {printable(found.reason)}")
    if found.runs is not None:
        words = ", ".join(f"{count:,} {status}" for status, count in sorted(found.runs.items()))
        typer.echo(f"Runs: {printable(words) or 'none'}.")
    for event_id in found.missing[:_SHOWN]:
        typer.echo(f"missing: {event_id}")
    if len(found.missing) > _SHOWN:
        typer.echo(f"and {len(found.missing) - _SHOWN:,} more; --json names all.")
    if resent is not None:
        typer.echo(f"{counted(len(resent), 'event')} sent again.")
        if left := _left(found, resent):
            typer.echo(f"{counted(left, 'event')} not sent again: payload_removed.")


async def _verify(url: str, wanted: Filter, *, with_runs: bool) -> Verification:
    settings = Settings.load(os.environ)
    async with make_http(limit=4) as http, open_reading(url) as outbox:
        reader = make_rest_api(settings, http, timeout_seconds=_TIMEOUT_SECONDS)
        if reader is None:
            raise InngestApiError("Inngest can't be asked: INNGEST_SIGNING_KEY is not set.")
        if wanted.ids is not None:
            given = await find_ids(outbox.inspector, wanted.ids)
            unambiguous(given)
            all_known(given)
            _all_delivered(given)
            wanted = msgspec.structs.replace(wanted, ids=tuple(row.id for row in given.rows))
        search = Search(outbox.inspector, outbox.positions)
        return await verify(search, reader, wanted, with_runs=with_runs)


def _all_delivered(given: FoundIds) -> None:
    """Exit when an event that was named is not delivered: there is nothing to ask about it."""
    others = [row for row in given.rows if row.state is not State.DELIVERED]
    for row in others:
        typer.echo(f"outbox: {printable(row.id)} is {row.state}, not delivered.", err=True)
    if others:
        raise typer.Exit(CANNOT_TELL)


async def _resend(url: str, ids: list[str], actor: str) -> list[str]:
    if not ids:
        return []
    act = new_act("missing in Inngest")
    done: list[str] = []
    async with open_writing(url) as outbox:
        for page in pages(ids):
            named = Named(page, State.DELIVERED)
            done += await outbox.repairs.replay(named, actor=actor, act=act)
    return done
