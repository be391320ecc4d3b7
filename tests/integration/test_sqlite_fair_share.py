"""An owner who fills the queue holds back nobody else, and costs nothing while nobody does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from service.errors import OutboxFullError, TooManyPendingError
from service.outbox.sqlite.quota import FairShare
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.storage import append_all, ask, claim, deliver, event

LIMITS = {"max_pending": 10_000, "max_pending_per_user": 10_000}
SMALL = FairShare(heavy_rows=50)


async def owners(outbox: SqliteOutbox, max_events: int) -> Counter[str]:
    batch = await claim(outbox, ask(max_events))
    await deliver(outbox, batch)
    return Counter(entry.user_id for entry in batch.entries)


async def test_a_claim_beside_a_flood_gives_half_to_those_who_have_few(tmp_path: Path) -> None:
    async with open_sqlite_outbox(tmp_path / "outbox.db", **LIMITS, fair_share=SMALL) as outbox:
        await append_all(outbox, 200, "flood")
        await append_all(outbox, 30, "ada")
        assert await owners(outbox, 20) == {"flood": 10, "ada": 10}
        assert await owners(outbox, 20) == {"flood": 10, "ada": 10}
        await append_all(outbox, 1, "kim")
        assert await owners(outbox, 22) == {"flood": 11, "ada": 10, "kim": 1}
        assert await owners(outbox, 20) == {"flood": 20}


async def test_batches_of_one_go_to_both_in_turn(tmp_path: Path) -> None:
    async with open_sqlite_outbox(tmp_path / "outbox.db", **LIMITS, fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        await append_all(outbox, 3, "ada")
        found = Counter[str]()
        for _ in range(4):
            found += await owners(outbox, 1)
        assert found == {"flood": 2, "ada": 2}


async def test_the_share_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, **LIMITS, fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        await append_all(outbox, 3, "ada")
    async with open_sqlite_outbox(path, **LIMITS, fair_share=SMALL) as outbox:
        assert await owners(outbox, 4) == {"flood": 2, "ada": 2}


async def test_nobody_is_marked_while_many_have_few(tmp_path: Path) -> None:
    async with open_sqlite_outbox(tmp_path / "outbox.db", **LIMITS, fair_share=SMALL) as outbox:
        for number in range(20):
            await append_all(outbox, 10, f"u-{number}")
        assert not outbox.claims.picker.may_have_express


async def test_limits_hold_from_the_first_post_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 5)
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=5) as outbox:
        with pytest.raises(TooManyPendingError):
            await outbox.intake.append(event())
        await append_all(outbox, 4, "u-2")
        with pytest.raises(OutboxFullError):
            await outbox.intake.append(event("u-3"))
