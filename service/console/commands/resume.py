"""`outbox resume`: starts delivery again after `outbox pause`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.console.commands.address import DEFAULT_URL, Url
from service.console.commands.command import run
from service.console.commands.options import Actor, Json, actor_name
from service.console.commands.pause import HiddenYes, say_delivery, set_paused

Now = Annotated[
    bool, typer.Option("--now", help="Ask Inngest at once, also where it asked for time.")
]


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
    delivery = run(set_paused(url, actor_name(actor), paused=False, ask_now=now))
    say_delivery(delivery, json=json)
