"""`WEB_CONCURRENCY=N`: one store process and N front processes that accept on one socket.

The parent only binds the sockets, starts the children, restarts one that dies, passes the stop on,
and replaces all of them by their new version. The sockets are inherited, so that no connection
waits in the queue of a process that is gone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence

from service.cli.child_process import Child
from service.cli.keeper import Keeper, KeeperPolicy

_LOAD_SECONDS = 60.0


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
        self._say = say
        self._store = Keeper(store, self._policy)
        self._fronts = [Keeper(front, self._policy) for front in fronts]
        self._coming: list[Keeper] = []
        self._upgrade: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def run(self) -> int:
        """Until stopped: 0, or 2 when a child's first start was faulty, which stops the others."""
        for keeper in (self._store, *self._fronts):
            keeper.start(faulty=self.stop)
        code, waited_for = 0, None
        while waited_for is not self._fronts or not self._is_stopping:
            waited_for = self._fronts
            code = max([code, *[await front.ended() for front in waited_for]])
        # The fronts' last requests need the store until here.
        self._store.stop()
        return max([code, *[await one.ended() for one in (self._store, *self._coming)]])

    async def ready(self) -> None:
        """Wait until every child does its work."""
        await asyncio.gather(*(one.ready() for one in (self._store, *self._fronts)))

    def stop(self) -> None:
        """Stop the fronts, then the store; `run` returns when all have ended. May come twice."""
        self._is_stopping = True
        if self._upgrade:
            self._upgrade.cancel()
        for front in (*self._fronts, *self._coming):
            front.stop()

    def kill(self) -> None:
        """End the children at once."""
        self._is_stopping = True
        for child in (self._store, *self._fronts, *self._coming):
            child.stop(signal.SIGKILL)

    def upgrade(self) -> None:
        """Replace the children by processes of the program as it is now; see `_replace`."""
        if self._is_stopping or (self._upgrade and not self._upgrade.done()):
            return
        self._upgrade = asyncio.create_task(self._replace(), name="upgrade")

    async def _replace(self) -> None:
        """Load the new store, let it take the outbox, then replace the fronts.

        While the outbox changes hands posts wait in the fronts. A new store that does not load
        changes nothing; new fronts that do not come leave the old ones at work.
        """
        self._say("Upgrade: the new version loads.")
        store, fronts = self._children
        if not await self._replace_store(Keeper(store, self._policy)):
            self._say("Upgrade failed: the new store process did not load; the old one continues.")
        elif not await self._replace_fronts([Keeper(front, self._policy) for front in fronts]):
            self._say("Upgrade failed: a new front process did not come; the old ones go on.")
        else:
            self._say("Upgrade: done.")

    async def _replace_store(self, new: Keeper) -> bool:
        self._coming = [new]
        new.start(take_over=True)
        if not await new.comes(new.waits, _LOAD_SECONDS):
            await self._give_up()
            return False
        old, self._store = self._store, new
        self._coming = [old]
        old.stop()
        await old.ended()
        self._coming = []
        new.go()
        await new.ready()
        return True

    async def _replace_fronts(self, new: list[Keeper]) -> bool:
        self._coming = new
        for front in new:
            front.start()
        if not all([await front.comes(front.ready, _LOAD_SECONDS) for front in new]):
            await self._give_up()
            return False
        old, self._fronts = self._fronts, new
        self._coming = old
        for front in old:
            front.stop()
        for front in old:
            await front.ended()
        self._coming = []
        return True

    async def _give_up(self) -> None:
        """End what was to come."""
        for keeper in self._coming:
            keeper.stop(signal.SIGKILL)
            await keeper.ended()
        self._coming = []
