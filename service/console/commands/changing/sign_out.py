"""`outbox sign-out`: ends the sessions of a user that the service made."""

from __future__ import annotations

from typing import Annotated

import typer

from service.bootstrap.operations import open_inspector, open_sign_outs
from service.console.terminal.command import DEFAULT_URL, Url, run
from service.console.terminal.options import Actor, Issuer, Json, actor_name, owners_of
from service.console.terminal.tables import print_json
from service.observe.printable import printable
from service.outbox.model import Filter

UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)]


def sign_out(
    user: UserId,
    *,
    issuer: Issuer = None,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """End all sessions of a user that the service made. The user can sign in again.

    Sessions of a Next.js front end are not ended: the front end made them.

    Example: `outbox sign-out u-1`
    """
    owners = owners_of(user, issuer)
    issuers = [owner.partition(" ")[0] for owner in owners]
    is_known = run(_sign_out(url, owners, actor_name(actor)))
    if json:
        print_json({"user": user, "issuers": issuers, "hasEvents": is_known})
        return
    if not is_known:
        typer.echo(f"outbox: there is no event of {printable(user)}; check the id.", err=True)
    typer.echo(f"Ended the sessions of {printable(user)} ({printable(', '.join(issuers))}).")


async def _sign_out(url: str, owners: list[str], actor: str) -> bool:
    """End the sessions; True where one of the owners has events."""
    async with open_inspector(url) as inspector:
        found = [await inspector.rows(Filter(owner=owner, limit=1)) for owner in owners]
    async with open_sign_outs(url) as sign_outs:
        await sign_outs.sign_out(owners, actor=actor)
    return any(found)
