"""`outbox pause` and `outbox resume`: stop and start delivery; posts are accepted all the while.

Both act at once, since either undoes the other; the running service follows within about a second
and remembers over restarts.
"""

from __future__ import annotations

from typing import Annotated

import typer

from service.bootstrap.operations import open_repairs
from service.cli.outbox.options import DEFAULT_URL, Actor, Json, Url, actor_name, run
from service.cli.outbox.tables import print_json
from service.outbox.model import DeliveryRecord

# Taken so that scripts may say it to every command that changes something.
Yes = Annotated[bool, typer.Option("--yes", hidden=True)]


def pause(
    *, yes: Yes = False, actor: Actor = None, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Pause delivery: events are accepted and kept, nothing is sent until `outbox resume`.

    Example: `outbox pause --actor ada`
    """
    del yes
    _say(run(_set_paused(url, actor_name(actor), paused=True)), json=json)


def resume(
    *, yes: Yes = False, actor: Actor = None, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Resume delivery after `outbox pause`.

    Example: `outbox resume`
    """
    del yes
    _say(run(_set_paused(url, actor_name(actor), paused=False)), json=json)


def _say(delivery: DeliveryRecord, *, json: bool) -> None:
    if json:
        print_json({"paused": delivery.paused_by is not None, "pausedBy": delivery.paused_by})
    elif delivery.paused_by:
        typer.echo(f"Delivery is paused by {delivery.paused_by}. Posts are still accepted.")
    else:
        typer.echo("Delivery is resumed.")


async def _set_paused(url: str, actor: str, *, paused: bool) -> DeliveryRecord:
    async with open_repairs(url) as outbox:
        return await outbox.set_paused(paused=paused, actor=actor)
