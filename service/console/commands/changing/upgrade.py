"""`outbox upgrade`: replaces the running processes by the version that is installed now."""

from __future__ import annotations

import typer

from service.console.commands.changing.pause import HiddenYes
from service.console.terminal.command import DEFAULT_URL, Url, run
from service.outbox.link.served import running_service


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
