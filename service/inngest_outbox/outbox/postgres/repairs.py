"""The changes of operators: replay, discard, purge.

Nothing here touches a row under a claim. A change, its counts and its audit row are in one commit.
A purge commits small pages, so that no transaction is long.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from inngest_outbox.outbox.audit import ERASED, Act, ErasedRecords, act_of
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Named
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.queue import Wakeup
from inngest_outbox.outbox.postgres.records import PostgresDelivery, audited
from inngest_outbox.outbox.storable import storable

_PURGE_PAGE = 500
_PURGE_PAUSE_SECONDS = 0.02


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
