"""`outbox pause`, `resume` and `upgrade`: delivery stopped and started, the processes replaced."""

from __future__ import annotations

from typing import Annotated

import typer

from inngest_outbox.bootstrap.operations import open_writing
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, run
from inngest_outbox.console.terminal.options import Actor, Json, actor_name
from inngest_outbox.console.terminal.tables import print_json
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.link.served import running_service
from inngest_outbox.outbox.model import DeliveryRecord

# Scripts may say --yes to every command that changes something.
HiddenYes = Annotated[bool, typer.Option("--yes", hidden=True)]
Reason = Annotated[
    str, typer.Option("--reason", help="Why. Shown wherever the pause is shown, until it ends.")
]
Now = Annotated[
    bool, typer.Option("--now", help="Ask Inngest at once, also where it asked for time.")
]


def pause(
    *,
    reason: Reason = "",
    yes: HiddenYes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Pause delivery: events are accepted and kept, nothing is sent until `outbox resume`.

    Example: `outbox pause --reason "Inngest is being upgraded"`
    """
    del yes
    paused = _set_paused(url, actor_name(actor), paused=True, reason=reason.strip())
    _say(run(paused), json=json)


def resume(
    *,
    now: Now = False,
    yes: HiddenYes = False,
    actor: Actor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Resume delivery after `outbox pause`; with --now also end a wait for Inngest.

    Example: `outbox resume --now`
    """
    del yes
    delivery = run(_set_paused(url, actor_name(actor), paused=False, ask_now=now))
    _say(delivery, json=json)


def upgrade(*, yes: HiddenYes = False, url: Url = DEFAULT_URL) -> None:
    """Replace the running processes by the version that is installed now; no post is refused.

    Run it on the service's machine, as the service's user. Exits with 2, and says which version
    serves and why, when that is not the new one. One process alone is not upgraded: its supervisor
    restarts it.

    Example: `outbox upgrade`
    """
    del yes
    run(_upgrade(url))
    typer.echo("The new version serves.")


async def _upgrade(url: str) -> None:
    async with running_service(url) as service:
        await service.upgrade()


def _say(delivery: DeliveryRecord, *, json: bool) -> None:
    if json:
        is_paused = delivery.paused_by is not None
        by = {"pausedBy": delivery.paused_by, "reason": delivery.pause_reason or None}
        print_json({"paused": is_paused, **by})
    elif delivery.paused_by:
        said = f": {delivery.pause_reason}" if delivery.pause_reason else ""
        words = printable(f"{delivery.paused_by}{said}")
        typer.echo(f"Delivery is paused by {words.rstrip('.')}. Posts are still accepted.")
    else:
        typer.echo("Delivery is resumed.")


async def _set_paused(
    url: str, actor: str, *, paused: bool, ask_now: bool = False, reason: str = ""
) -> DeliveryRecord:
    async with open_writing(url) as outbox:
        return await outbox.repairs.set_paused(
            paused=paused, actor=actor, ask_now=ask_now, reason=reason
        )
