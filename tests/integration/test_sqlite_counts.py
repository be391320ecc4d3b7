"""The count of what waits in an SQLite outbox: true over all that can happen to rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.outbox.model import Dead, Filter, Retry, Settlement, State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.named_rows import named
from tests.support.posting import can_append
from tests.support.storage import append_all, ask, claim, deliver, event, eventually


async def test_the_count_of_undelivered_rows_stays_true(tmp_path: Path) -> None:
    """Over stale settles, expired leases, discard, replay, restart."""
    path = tmp_path / "other.db"

    async def agrees(outbox: SqliteOutbox) -> None:
        stats = await outbox.inspector.stats()
        assert outbox.undelivered == stats.pending + stats.delivering
        assert sum(outbox._counts._pending.values()) == outbox.undelivered
        assert min(outbox._counts._pending.values(), default=0) >= 0

    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        await append_all(outbox, 10, "u-1")
        await append_all(outbox, 10, "u-2")
        batch = await claim(outbox, ask(15))
        late = await claim(outbox, ask(5, lease_seconds=0.05))
        await agrees(outbox)
        retry = await claim(outbox, ask(100))
        assert await deliver(outbox, late) == 5
        await agrees(outbox)
        deads = [Dead(entry.seq, 1, "rejected", "bad") for entry in batch.entries]
        await outbox.queue.settle(Settlement(batch.claim, dead=deads))
        await outbox.queue.settle(Settlement(batch.claim, dead=deads))
        await agrees(outbox)
        agains = [Retry(entry.seq, 0, 0, isolated=False) for entry in retry.entries[:2]]
        await outbox.queue.settle(Settlement(retry.claim, retry=agains))
        await agrees(outbox)
        await outbox.repairs.replay(
            await named(outbox.inspector, Filter(state=State.DEAD, limit=7)), actor="test"
        )
        await agrees(outbox)
        await outbox.repairs.discard(
            await named(outbox.inspector, Filter(user_id="u-2", limit=4)), actor="test"
        )
        await agrees(outbox)
        left = outbox.undelivered
    async with open_sqlite_outbox(path, max_pending=left, max_pending_per_user=1000) as outbox:
        batch = await claim(outbox, ask(3))
        await deliver(outbox, batch)
        await eventually(lambda: outbox.undelivered == left - len(batch.entries))
        await agrees(outbox)
        assert sum([await can_append(outbox) for _ in batch.entries]) == len(batch.entries)
        with pytest.raises(Exception, match="full"):
            await outbox.intake.append(event())
