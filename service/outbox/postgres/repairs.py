"""The changes of operators: replay, discard, purge, pause; and the delivery record.

Nothing here touches a row under a claim. A change, its counts and its audit row are in one commit.
A purge commits small pages, so that no transaction is long.

The record is one row that every process reads and saves. `revision` grows with every save. A save
keeps `paused_by`, which only an operator changes; a pause keeps every other field. The database
stores instants; callers get and give seconds from now.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import msgspec

from service.outbox.audit import ERASED, Act, ErasedRecords, act_of
from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Named
from service.outbox.postgres.database.pool import PostgresPool
from service.outbox.postgres.queue import Wakeup
from service.outbox.postgres.records import audited
from service.outbox.storable import storable

_PURGE_PAGE = 500
_PURGE_PAUSE_SECONDS = 0.02


class PostgresDelivery:
    """Loads and saves the delivery record."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load(self) -> DeliveryRecord:
        """As the port says."""
        [row] = await self._pool.run("LOAD_DELIVERY")
        return DeliveryRecord(*row)

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        """As the port says."""
        seconds = max(0.0, record.reopens_in_seconds)
        given = {**msgspec.structs.asdict(record), "reopens_in_seconds": seconds}
        [row] = await self._pool.run("SAVE_DELIVERY", given)
        return DeliveryRecord(*row)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery, and with `ask_now` end a wait; returns the stored record."""
        act = audited("pause" if paused else "resume", actor=actor, detail=reason)
        paused_by = actor if paused else None
        await self._pool.run("SET_PAUSED", {**act, "paused_by": paused_by, "ask_now": ask_now})
        return await self.load()


class PostgresRepairs:
    """Changes rows by operators' commands."""

    def __init__(self, pool: PostgresPool, wakeup: Wakeup, delivery: PostgresDelivery) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self.set_paused = delivery.set_paused
        self._purged_to_ms = self._emptied_to_ms = 0

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """As the port says."""
        rows = await self._pool.ask("REPLAY", _named(wanted, actor, act), repeat_with=None)
        self._wakeup.rows_are_due()
        return [row[0] for row in rows]

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """As the port says."""
        given = _named(wanted, actor, act or act_of(wanted.filter))
        # An event may leave the inbox between the two statements, so the inbox is first.
        arrived = await self._pool.ask("INBOX_DISCARD", given, repeat_with=None)
        rows = await self._pool.ask("DISCARD", given, repeat_with=None)
        return [row[0] for row in (*arrived, *rows)]

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """As the port says. The retention goes on where it was the last time."""
        gone, to_ms = 0, self._purged_to_ms if actor is None else 0
        async for count, next_ms in self._purge_pages("PURGE", older_than_seconds, to_ms):
            gone, to_ms = gone + count, next_ms
        if actor is None:
            self._purged_to_ms = to_ms
        elif gone:
            detail = f"delivered rows: {gone}"
            await self._pool.run("ADD_ACT", audited("purge", actor=actor, detail=detail))
        return gone

    async def purge_payloads(self, *, older_than_seconds: float) -> int:
        """As the port says. It goes on where it was the last time."""
        gone = 0
        pages = self._purge_pages("PURGE_PAYLOADS", older_than_seconds, self._emptied_to_ms)
        async for count, self._emptied_to_ms in pages:
            gone += count
        return gone

    async def _purge_pages(
        self, statement: str, older_than_seconds: float, from_ms: int
    ) -> AsyncIterator[tuple[int, int]]:
        """Run `statement` page by page: how many rows each took, and where the next one begins."""
        is_last = False
        while not is_last:
            given = {
                "now_ms": wall_now_ms(),
                "older_than_ms": int(older_than_seconds * 1000),
                "page": _PURGE_PAGE,
                "from_ms": from_ms,
            }
            [(count, next_ms, is_last)] = await self._pool.run(statement, given)
            from_ms = from_ms if next_ms is None else next_ms
            yield int(count), from_ms
            if not is_last:
                await asyncio.sleep(_PURGE_PAUSE_SECONDS)

    async def erase_records(self, owner: str, *, actor: str) -> ErasedRecords:
        """As the port says."""
        user_id = owner.partition(" ")[2] or owner
        given = {
            "owner": owner,
            "pattern": rf"(^|[^\w@.-]){re.escape(user_id)}($|[^\w@-])",
            "erased": ERASED,
            **audited("erase", actor=actor, detail="everything of one owner"),
        }
        [(settings, audit_rows)] = await self._pool.run("ERASE_RECORDS", given)
        return ErasedRecords(settings, audit_rows)


def _named(wanted: Named, actor: str, act: Act | None) -> dict[str, object]:
    act = act or act_of(wanted.filter)
    return {
        "ids": [storable(one) for one in wanted.ids],
        "state": wanted.state,
        "owner": wanted.owner,
        "never_sent": wanted.never_sent,
        "actor": actor,
        "act": act.id,
        "chosen": act.chosen,
    }
