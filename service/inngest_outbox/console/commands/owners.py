"""`outbox erase` and `outbox sign-out`: the records and the sessions of one owner."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
import typer

from inngest_outbox.bootstrap.operations import open_erasure, open_reading, open_writing
from inngest_outbox.console.operations.erasure import Certificate, erase, owned
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.console.terminal.command import ABSENT, DEFAULT_URL, Url, run
from inngest_outbox.console.terminal.options import (
    Actor,
    Issuer,
    Json,
    Yes,
    actor_name,
    owners_elsewhere,
    owners_of,
)
from inngest_outbox.console.terminal.tables import print_json
from inngest_outbox.identity.user import EVENT_KEY_ISSUER
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.model import Filter

_PATIENCE_SECONDS = 30.0
_DELIVERY_SECONDS = 300.0

OfUser = Annotated[str | None, typer.Option("--user", metavar="ID", help="The user's id.")]
OfName = Annotated[
    str | None,
    typer.Option("--owner", metavar="NAME", help="The name of an event key, as a machine's owner."),
]
AfterDelivery = Annotated[
    bool,
    typer.Option("--after-delivery", help="Deliver what waits first, for at most five minutes."),
]
UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)]


def erase_command(
    *,
    user: OfUser = None,
    issuer: Issuer = None,
    owner: OfName = None,
    after_delivery: AfterDelivery = False,
    yes: Yes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove everything of one owner: events, settings, sessions, its name in the audit.

    Without --yes it only says how many events. Events that wait are discarded, or delivered first.
    Without --issuer it names other issuers with this id. Prints a certificate. Exits with 1 when
    events are left, still under way or new: repeat the command.

    Example: `outbox erase --user u-1 --yes --json`
    """
    if bool(user) == bool(owner):
        raise typer.BadParameter("give --user or --owner")
    owners = [f"{EVENT_KEY_ISSUER} {owner}"] if owner else owners_of(user or "", issuer)
    if user and not issuer:
        others = [one for one in owners_elsewhere(user) if one not in owners]
        for other in run(_with_events(url, others)):
            name = other.partition(" ")[0]
            typer.echo(f"The same id of {name} has events too: give --issuer {name}.", err=True)
    if not yes:
        _say_would(run(_counted(url, owners)), json=json)
        return
    done = run(_erase(url, owners, actor_name(actor), after_delivery=after_delivery))
    if json:
        print_json(msgspec.to_builtins(done))
    else:
        _say(done)
    if done.left:
        raise typer.Exit(ABSENT)


def _say_would(events: dict[str, int], *, json: bool) -> None:
    if json:
        print_json({"action": "erase", "done": False, "events": events})
        return
    typer.echo(f"Would erase {_counts(events)}. Nothing was changed: give --yes to do it.")


def _say(done: Certificate) -> None:
    typer.echo(
        f"Erased {_counts(done.events)}, {counted(done.settings, 'stored setting')}, the sessions, "
        f"and the name in {counted(done.audit_rows, 'row')} of the audit."
    )
    if done.left:
        left = counted(done.left, "event")
        typer.echo(f"{left} left, under way or new; repeat the command.", err=True)
    typer.echo(f"Out of reach: {', '.join(done.out_of_reach)}.")


def _counts(events: dict[str, int]) -> str:
    by_state = ", ".join(f"{count:,} {state}" for state, count in sorted(events.items()))
    return counted(sum(events.values()), "event") + (f" ({by_state})" if by_state else "")


async def _with_events(url: str, owners: list[str]) -> list[str]:
    async with open_reading(url) as outbox:
        return [one for one in owners if await outbox.inspector.rows(Filter(owner=one, limit=1))]


async def _counted(url: str, owners: list[str]) -> dict[str, int]:
    async with open_erasure(url) as parts:
        return dict(Counter(str(row.state) for row in await owned(parts, owners)))


async def _erase(url: str, owners: list[str], actor: str, *, after_delivery: bool) -> Certificate:
    patience = _DELIVERY_SECONDS if after_delivery else _PATIENCE_SECONDS
    async with open_erasure(url) as parts:
        return await erase(
            parts,
            owners,
            actor=actor,
            after_delivery=after_delivery,
            patience_seconds=patience,
        )


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
    if not user:
        raise typer.BadParameter("give a user's id")
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
    async with open_reading(url) as outbox:
        found = [await outbox.inspector.rows(Filter(owner=owner, limit=1)) for owner in owners]
    async with open_writing(url) as writing:
        await writing.sign_outs.sign_out(owners, actor=actor)
    return any(found)
