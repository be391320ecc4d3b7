"""`WEB_CONCURRENCY=N`: one store process and N front processes that accept on one socket.

The parent only binds the sockets, starts the children, restarts one that dies, passes the stop on,
and replaces all of them by their new version. The sockets are inherited, so that no connection
waits in the queue of a process that is gone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence

from inngest_outbox.errors import UpgradeError
from inngest_outbox.processes.child_process import Child
from inngest_outbox.processes.child_supervisor import (
    LOAD_SECONDS,
    OPEN_SECONDS,
    ChildSupervisor,
    SupervisorPolicy,
)

STOPS = "There is no upgrade: the service stops."
_CONTINUES = "The old version continues."
_HANGS = "It hangs; see its log."


class ProcessPool:
    """Keeps a store process and its front processes running until `stop`.

    `say` gets sentences about the children, `ended` the id of each process that has ended.
    `store_once` are options of the first store process alone.
    """

    def __init__(
        self,
        store: Child,
        fronts: Sequence[Child],
        environment: Mapping[str, str],
        *,
        say: Callable[[str], None],
        ended: Callable[[int], None],
        store_once: Sequence[str] = (),
    ) -> None:
        self._children = (store, *fronts)
        self._store_once = store_once
        self._policy = SupervisorPolicy(environment, say, ended)
        self._store, *self._fronts = self._supervisors()
        self._coming: list[ChildSupervisor] = []
        self._is_stopping = False

    async def run(self) -> int:
        """Until stopped: 0, or 2 when a child's first start was faulty, which stops the others."""
        self._store.start(faulty=self.stop, once=self._store_once)
        for front in self._fronts:
            front.start(faulty=self.stop)
        waited_for = None
        while waited_for is not self._fronts or not self._is_stopping:
            waited_for = self._fronts
            code = max([await front.ended() for front in waited_for])
        self._store.stop()  # the fronts' last requests need the store until here
        return max([code, *[await one.ended() for one in (self._store, *self._coming)]])

    async def ready(self) -> None:
        """Wait until every child does its work."""
        await asyncio.gather(*(one.ready() for one in (self._store, *self._fronts)))

    def stop(self) -> None:
        """Stop the fronts, then the store; `run` returns when all have ended. May come twice."""
        self._is_stopping = True
        self._store.take_back()
        for one in (*self._fronts, *self._coming):
            one.stop()

    def kill(self) -> None:
        """End the children at once."""
        self._is_stopping = True
        for child in (self._store, *self._fronts, *self._coming):
            child.stop(signal.SIGKILL)

    async def upgrade(self) -> None:
        """Replace the children by processes of the program as it is now.

        All new processes load first, then the new store takes the outbox, then the new fronts take
        requests. While the outbox changes hands posts wait in the fronts. Raises UpgradeError,
        which says which version serves.
        """
        if self._is_stopping:
            raise UpgradeError(STOPS)
        store, *fronts = self._coming = self._supervisors()
        await self._load(self._coming)
        await self._replace_store(store, fronts)
        await self._replace_fronts(fronts)

    async def _load(self, new: list[ChildSupervisor]) -> None:
        for one in new:
            one.start(take_over=True)
        for one in new:
            if not await one.comes(one.waits, LOAD_SECONDS):
                what = f"{one.name} of the new version did not load: {_why(one)}"
                await self._give_up()
                raise UpgradeError(f"{_CONTINUES} {what}")

    async def _replace_store(self, new: ChildSupervisor, fronts: list[ChildSupervisor]) -> None:
        old = self._store
        old.hand_over()
        if not await old.comes(old.waits, LOAD_SECONDS):
            old.take_back()
            await self._give_up()
            raise UpgradeError(f"{_CONTINUES} Its store process kept the outbox.")
        self._store, self._coming = new, [old, *fronts]
        new.go()
        if await new.comes(new.ready, OPEN_SECONDS):
            await self._end([old], signal.SIGTERM)
            return
        self._store, self._coming = old, [new, *fronts]
        failure = f"The new store process did not open the outbox: {_why(new)}"
        await self._give_up()
        old.go()
        if await old.comes(old.ready, LOAD_SECONDS):
            raise UpgradeError(f"{_CONTINUES} {failure}")
        raise UpgradeError(
            f"No version has the outbox. {failure} The old one could not either: {_why(old)}"
        )

    async def _replace_fronts(self, new: list[ChildSupervisor]) -> None:
        for front in new:
            front.go()
        if not all([await front.comes(front.ready, LOAD_SECONDS) for front in new]):
            faults = "; ".join({front.fault for front in new if front.fault}) or _HANGS
            await self._give_up()
            raise UpgradeError(
                "The store process is of the new version, the front processes are of the old one: "
                f"a new one did not come. {faults}"
            )
        self._coming, self._fronts = self._fronts, new
        await self._end(self._coming, None)

    async def _give_up(self) -> None:
        """End the processes that were to come."""
        await self._end(self._coming, signal.SIGKILL)

    async def _end(self, leaving: list[ChildSupervisor], number: signal.Signals | None) -> None:
        """End processes by a signal; None asks them to let go of what they hold first."""
        for one in leaving:
            if number is None:
                one.retire()
            else:
                one.stop(number)
        ending = asyncio.gather(*(one.ended() for one in leaving))
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await asyncio.shield(ending)
        except TimeoutError:
            for one in leaving:
                one.stop(signal.SIGKILL)
            await ending

    def _supervisors(self) -> list[ChildSupervisor]:
        return [ChildSupervisor(child, self._policy) for child in self._children]


def _why(late: ChildSupervisor) -> str:
    """Why a process did not come. To be asked before the process is ended."""
    return late.fault or _HANGS
