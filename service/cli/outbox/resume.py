"""`outbox resume`: starts delivery again after `outbox pause`."""

from __future__ import annotations

from service.cli.outbox.command import run
from service.cli.outbox.options import DEFAULT_URL, Actor, Json, Url, actor_name
from service.cli.outbox.pause import HiddenYes, say_delivery, set_paused


def resume(
    *, yes: HiddenYes = False, actor: Actor = None, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Resume delivery after `outbox pause`.

    Example: `outbox resume`
    """
    del yes
    say_delivery(run(set_paused(url, actor_name(actor), paused=False)), json=json)
