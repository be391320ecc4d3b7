"""`outbox upgrade`: replaces the running service by the version that is installed now."""

from __future__ import annotations

import typer

from service.console.commands.pause import HiddenYes
from service.console.terminal.address import DEFAULT_URL, Url
from service.console.terminal.command import run
from service.errors import OutboxUnavailableError
from service.processes.upgrade_socket import ask_for_upgrade, find_services


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
    """Raises OutboxUnavailableError when the new version does not serve."""
    services = await find_services(url)
    if len(services) != 1:
        count = f"{len(services)} services run" if services else "No service runs"
        raise OutboxUnavailableError(
            f"{count} on this outbox, on this machine and as this user (OUTBOX_URL or --url)."
        )
    outcome = await ask_for_upgrade(next(iter(services)))
    if outcome is None:
        raise OutboxUnavailableError("The service ended before it answered; see its log.")
    if outcome.failure:
        raise OutboxUnavailableError(outcome.failure)
