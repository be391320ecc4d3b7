"""`WEB_CONCURRENCY=N`: one store process and N front processes that accept on one socket.

The parent only binds the sockets, starts the children, restarts one that dies, passes the stop on,
and replaces all of them by their new version. The sockets are inherited, so that no connection
waits in the queue of a process that is gone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence

from service.processes.child_process import Child
from service.processes.keeper import LOAD_SECONDS, OPEN_SECONDS, Keeper, KeeperPolicy
from service.processes.upgrades import STOPPED, Outcome


class ProcessPool:
    """Keeps a store process and its front processes running until `stop`.

    `say` gets sentences about the children, `ended` the id of each process that has ended.
    """

    def __init__(
        self,
        store: Child,
        fronts: Sequence[Child],
        environment: Mapping[str, str],
        *,
        say: Callable[[str], None],
        ended: Callable[[int], None],
    ) -> None:
        self._children = (store, fronts)
        self._policy = KeeperPolicy(environment, say, ended)
        self._store = Keeper(store, self._policy)
        self._fronts = [Keeper(front, self._policy) for front in fronts]
        self._coming: list[Keeper] = []
        self._is_stopping = False

    async def run(self) -> int:
        """Until stopped: 0, or 2 when a child's first start was faulty, which stops the others."""
        for keeper in (self._store, *self._fronts):
            keeper.start(faulty=self.stop)
        code, waited_for = 0, None
        while waited_for is not self._fronts or not self._is_stopping:
            waited_for = self._fronts
            code = max([code, *[await front.ended() for front in waited_for]])
        # The fronts' last requests need the store until here; one that migrates heeds no SIGTERM.
        self._store.stop(signal.SIGTERM if self._store.was_ready else signal.SIGKILL)
        return max([code, *[await one.ended() for one in (self._store, *self._coming)]])

    async def ready(self) -> None:
        """Wait until every child does its work."""
        await asyncio.gather(*(one.ready() for one in (self._store, *self._fronts)))

    def stop(self) -> None:
        """Stop the fronts, then the store; `run` returns when all have ended. May come twice."""
        self._is_stopping = True
        self._store.take_back()
        for front in (*self._fronts, *self._coming):
            front.stop()

    def kill(self) -> None:
        """End the children at once."""
        self._is_stopping = True
        for child in (self._store, *self._fronts, *self._coming):
            child.stop(signal.SIGKILL)

    async def upgrade(self) -> Outcome:
        """Replace the children by processes of the program as it is now.

        Load the new store, let it take the outbox, then replace the fronts. While the outbox
        changes hands posts wait in the fronts. A new store that does not become ready gives the
        outbox back to the old one; new fronts that do not come leave the old ones at work.
        """
        if self._is_stopping:
            return STOPPED
        store, fronts = self._children
        failure = await self._replace_store(Keeper(store, self._policy))
        if failure is None:
            failure = await self._replace_fronts([Keeper(one, self._policy) for one in fronts])
        return Outcome(failure)

    async def _replace_store(self, new: Keeper) -> str | None:
        """Why the new store does not serve, None when it does."""
        old = self._store
        self._coming = [new]
        new.start(take_over=True)
        if not await new.comes(new.waits, LOAD_SECONDS):
            return await self._give_up(f"The new store process did not load: {new.fault}")
        old.hand_over()
        if not await old.comes(old.waits, LOAD_SECONDS):
            old.take_back()
            return await self._give_up("The old store process did not let go of the outbox.")
        self._store, self._coming = new, [old]
        new.go()
        if not await new.comes(new.ready, OPEN_SECONDS):
            self._store, self._coming = old, [new]
            failure = await self._give_up(f"The new store process did not open it: {new.fault}")
            old.go()
            await old.comes(old.ready, LOAD_SECONDS)
            return failure
        await self._end_coming(signal.SIGTERM)
        return None

    async def _replace_fronts(self, new: list[Keeper]) -> str | None:
        """Why the new fronts do not serve, None when they do."""
        self._coming = new
        for front in new:
            front.start()
        if not all([await front.comes(front.ready, LOAD_SECONDS) for front in new]):
            faults = "; ".join({front.fault for front in new if front.fault})
            return await self._give_up(f"A new front process did not come: {faults}")
        self._coming, self._fronts = self._fronts, new
        await self._end_coming(signal.SIGTERM)
        return None

    async def _give_up(self, failure: str) -> str:
        """End what was to come; returns `failure`."""
        await self._end_coming(signal.SIGKILL)
        return failure

    async def _end_coming(self, number: signal.Signals) -> None:
        for keeper in self._coming:
            keeper.stop(number)
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await self._coming_ended()
        except TimeoutError:
            for keeper in self._coming:
                keeper.stop(signal.SIGKILL)
            await self._coming_ended()
        self._coming = []

    async def _coming_ended(self) -> None:
        for keeper in self._coming:
            await keeper.ended()
