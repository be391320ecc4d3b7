"""Upgrades, one at a time: SIGHUP or `outbox upgrade` asks for the program as it is installed now.

The invariant: an upgrade that fails says which version serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from service.observe.service_manager import ServiceManager


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The end of an upgrade. `failure` says which version serves and why, None after a success.

    One that `stops` was given up with the whole service.
    """

    failure: str | None = None
    stops: bool = False


ONE_PROCESS = (
    "One process is not upgraded while it runs: its supervisor restarts it, as in "
    "`systemctl restart inngest-outbox`. Nothing is changed."
)
STOPPED = Outcome("There is no upgrade: the service stops.", stops=True)


class Upgrades:
    """Asks `replace` to put the new version in the place of the old one, and says how it went.

    `status` is what the service manager shows while all is well.
    """

    def __init__(
        self,
        replace: Callable[[], Awaitable[Outcome]],
        say: Callable[[str], None],
        manager: ServiceManager,
        status: str,
    ) -> None:
        self._replace = replace
        self._say = say
        self._manager = manager
        self._status = status
        self._running: asyncio.Task[Outcome] | None = None

    def ask(self) -> asyncio.Task[Outcome]:
        """Begin an upgrade, unless one runs; its task."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="upgrade")
        return self._running

    def cancel(self) -> None:
        """Give up the upgrade that runs, if any: the service stops."""
        if self._running:
            self._running.cancel()

    async def _run(self) -> Outcome:
        self._say("Upgrade: the new version loads.")
        self._manager.reloading()
        outcome = await self._replace()
        if outcome.stops:
            return outcome
        self._say(f"Upgrade failed: {outcome.failure}" if outcome.failure else "Upgrade: done.")
        self._manager.ready(self._status)
        return outcome
