"""Upgrades, one at a time: SIGHUP or `outbox upgrade` asks for the program as it is installed now.

The invariant: an upgrade that fails leaves the old version at work, and says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from service.observe.service_manager import ServiceManager


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of an upgrade: `failure` is a sentence, None when there is none.

    After one that `restarts` the new version is about to start, in the process of the old one. One
    that `stops` was given up with the whole service.
    """

    failure: str | None = None
    restarts: bool = False
    stops: bool = False


STOPPED = Outcome("The service stops.", stops=True)


class Upgrades:
    """Asks `replace` to put the new version in the place of the old one, and tells how it went.

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
            self._say("Upgrade: given up, because the service stops.")
        elif outcome.failure:
            self._say(f"Upgrade failed: {outcome.failure}")
        elif not outcome.restarts:
            self._say("Upgrade: done.")
        if not (outcome.restarts or outcome.stops):
            self._manager.ready(self._status)
        return outcome
