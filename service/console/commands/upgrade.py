"""`outbox upgrade`: replaces the running service by the version that is installed now."""

from __future__ import annotations

import asyncio
import time

import typer

from service.console.commands.address import DEFAULT_URL, Url
from service.console.commands.command import run
from service.console.commands.pause import HiddenYes
from service.errors import OutboxUnavailableError
from service.processes.upgrade_socket import ask_for_upgrade, find_services

_POLL_SECONDS = 0.2
_START_SECONDS = 300.0  # a migration takes its time


def upgrade(*, yes: HiddenYes = False, url: Url = DEFAULT_URL) -> None:
    """Replace the running service by the version that is installed now; no post is refused.

    Run it on the service's machine, as the service's user. Exits with 2, and says why, when the
    old version continues.

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
    [(path, before)] = services.items()
    outcome = await ask_for_upgrade(path)
    if outcome and outcome.stops:
        raise OutboxUnavailableError(f"There is no upgrade. {outcome.failure}")
    if outcome and outcome.failure:
        raise OutboxUnavailableError(f"The old version continues. {outcome.failure}")
    if outcome and not outcome.restarts:
        return
    if not await _comes(url, before.run):
        raise OutboxUnavailableError(
            f"The new version is not ready after {_START_SECONDS:g} s; see the service's log."
        )


async def _comes(url: str, old_run: str) -> bool:
    """Whether a service with another run than `old_run` answers in time."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if any(one.run != old_run for one in (await find_services(url)).values()):
            return True
        await asyncio.sleep(_POLL_SECONDS)
    return False
