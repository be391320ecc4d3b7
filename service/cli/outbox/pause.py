"""`outbox pause`: stops delivery until `outbox resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.bootstrap.operations import open_repairs
from service.cli.outbox.address import DEFAULT_URL, Url
from service.cli.outbox.command import run
from service.cli.outbox.options import Actor, Json, actor_name
from service.cli.outbox.tables import print_json
from service.observe.printable import printable
from service.outbox.model import DeliveryRecord

# Scripts may say --yes to every command that changes something.
HiddenYes = Annotated[bool, typer.Option("--yes", hidden=True)]


def pause(
    *, yes: HiddenYes = False, actor: Actor = None, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Pause delivery: events are accepted and kept, nothing is sent until `outbox resume`.

    Example: `outbox pause --actor ada`
    """
    del yes
    say_delivery(run(set_paused(url, actor_name(actor), paused=True)), json=json)


def say_delivery(delivery: DeliveryRecord, *, json: bool) -> None:
    """Say whether delivery is paused, and by whom."""
    if json:
        print_json({"paused": delivery.paused_by is not None, "pausedBy": delivery.paused_by})
    elif delivery.paused_by:
        typer.echo(
            f"Delivery is paused by {printable(delivery.paused_by)}. Posts are still accepted."
        )
    else:
        typer.echo("Delivery is resumed.")


async def set_paused(
    url: str, actor: str, *, paused: bool, ask_now: bool = False
) -> DeliveryRecord:
    """Pause or resume delivery. Raises OutboxError."""
    async with open_repairs(url) as outbox:
        return await outbox.set_paused(paused=paused, actor=actor, ask_now=ask_now)
