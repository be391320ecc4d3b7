"""The intake of a PostgreSQL outbox with a database, limits and statements that a test decides."""

from __future__ import annotations

import asyncio
from typing import Any

from service.outbox.postgres.timings import PoolTimings

from service.errors import TooManyPendingError
from service.observe.recorder import NullRecorder
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Receipt
from service.outbox.limits import Held
from service.outbox.postgres.appends import Append, Appended
from service.outbox.postgres.intake import PostgresIntake
from service.supervisor import Supervisor

IDS = InngestIds(b"123456")


class Quota:
    """Refuses the first `refusals` requests."""

    def __init__(self) -> None:
        self.refusals = 0
        self.admitted: list[tuple[str, int, int]] = []
        self.entered_as: list[tuple[str, Held, Held, int | None]] = []

    async def admit(self, owner: str, rows: int, size: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise TooManyPendingError
        self.admitted.append((owner, rows, size))

    def is_express(self, owner: str) -> bool:
        return owner == "small"

    def entered(self, owner: str, reserved: Held, stored: Held, transaction: int | None) -> None:
        self.entered_as.append((owner, reserved, stored, transaction))


class Flush:
    """Answers each call as `answer` says, after `may_end` is set."""

    def __init__(self) -> None:
        self.warm = 0
        self.batches: list[list[Append]] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.began = asyncio.Event()
        self.replayed: set[str] = set()
        self.error: Exception | None = None

    async def warm_up(self, flushes: int) -> None:
        self.warm = flushes

    async def store(self, batch: list[Append]) -> None:
        self.batches.append(batch)
        self.began.set()
        await self.may_end.wait()
        for item in batch:
            if self.error:
                item.done.set_exception(self.error)
            elif not item.done.done():
                item.done.set_result(Appended([self._receipt(one.id) for one in item.events], 77))

    def _receipt(self, event_id: str) -> Receipt:
        return Receipt(event_id, 1, 0, IDS, replayed=event_id in self.replayed)


class Pool:
    """Has the rows of keys that were used."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.timings = PoolTimings()

    async def run(self, *_: object, **__: object) -> list[tuple[Any, ...]]:
        return self.rows

    def use(self, key: str, event_id: str) -> None:
        self.rows.append((event_id, "u-1", key, b"1", 5, 10**12, None, 10**12))


class World:
    def __init__(self) -> None:
        self.quota, self.flush, self.pool = Quota(), Flush(), Pool()
        self.supervisor = Supervisor(NullRecorder())
        given: Any = (self.pool, self.flush, self.quota)
        self.intake = PostgresIntake(*given, self.supervisor, lambda: IDS)
