"""The queue of a PostgreSQL outbox with answers, waits and marks that a test decides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.outbox.postgres.claims import CLAIM, CLAIM_EXPRESS, NEXT_DUE
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.leases import RELEASE, PostgresLeases
from service.outbox.postgres.queue import PostgresQueue
from service.outbox.postgres.settlements import SETTLE
from tests.support.storage import ask

ROWS = [
    (1, "e-1", 5, "u", None, 0, False, None, 0, None, None, None, b"{1}"),
    (2, "e-2", 6, "u", "t", 1, True, 7, 2, "i", "w", "e", b"{2}"),
]
NOTHING: list[Any] = []


class Pool:
    """Answers claims as `claims` says, one after the other, then none; the rest as it is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.claims: list[Any] = []
        self.next_due: list[tuple[float | None, bool]] = []
        self.settled = (0, False, False)
        self.released = 0
        self.release_error: Exception | None = None
        self.releasing = asyncio.Event()
        self.may_release = asyncio.Event()
        self.may_release.set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.began = asyncio.Event()
        self.at_once, self.most_at_once = 0, 0

    async def run(self, statement: str, given: Any = None, **how: Any) -> list[Any]:
        self.asked.append((statement, given, how))
        if statement in (CLAIM, CLAIM_EXPRESS):
            return await self._claimed()
        if statement == NEXT_DUE:
            return [self.next_due.pop(0) if self.next_due else (None, False)]
        if statement == SETTLE:
            return [self.settled]
        self.releasing.set()
        await self.may_release.wait()
        if self.release_error:
            raise self.release_error
        return [(self.released,)]

    async def _claimed(self) -> list[Any]:
        self.began.set()
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.may_answer.wait()
        finally:
            self.at_once -= 1
        found = self.claims.pop(0) if self.claims else NOTHING
        if isinstance(found, BaseException):
            raise found
        return list(found)

    def of(self, *statements: str) -> list[dict[str, Any]]:
        """The parameters of each run of these statements."""
        return [given for statement, given, _ in self.asked if statement in statements]


class Wakeup:
    """Notes the waits, which end at once until `patience` of them have passed."""

    poll_seconds = 20.0

    def __init__(self) -> None:
        self.generation = 0
        self.waits: list[tuple[int, float]] = []
        self.patience = 3
        self.here = self.due = 0
        self.waited, self.woken = asyncio.Event(), asyncio.Event()

    def claims_here(self) -> None:
        self.here += 1

    def rows_are_due(self) -> None:
        self.due += 1
        self.woken.set()

    async def wait(self, generation: int, seconds: float) -> None:
        self.waits.append((generation, seconds))
        if len(self.waits) == self.patience:
            self.waited.set()
            await asyncio.Event().wait()


class Marks:
    def __init__(self) -> None:
        self.looks: list[float] = []

    async def look(self, interval_seconds: float) -> bool:
        self.looks.append(interval_seconds)
        return False


class World:
    def __init__(self) -> None:
        self.pool, self.wakeup, self.marks = Pool(), Wakeup(), Marks()
        self.express = ExpressRows()
        given: Any = (self.pool, self.wakeup, self.marks)
        self.leases = PostgresLeases(given[0])
        self.queue = PostgresQueue(*given, self.leases, self.express)

    async def waits(self) -> list[float]:
        """The seconds of the first waits of a claim that finds nothing more."""
        async with asyncio.timeout(5):
            claim = asyncio.create_task(self.queue.claim(ask()))
            await self.wakeup.waited.wait()
            claim.cancel()
            await asyncio.gather(claim, return_exceptions=True)
        return [seconds for _, seconds in self.wakeup.waits]

    async def held(self) -> set[str]:
        """The claims that the queue would release at its end, as if sent."""
        await self.leases.release_held()
        return set(self.pool.of(RELEASE)[-1]["claims"])


async def cancelled_claim(world: World) -> None:
    """A claim that is cancelled before its answer of two rows."""
    world.pool.claims = [ROWS]
    world.pool.may_answer.clear()
    claim = asyncio.create_task(world.queue.claim(ask()))
    await world.pool.began.wait()
    claim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claim
