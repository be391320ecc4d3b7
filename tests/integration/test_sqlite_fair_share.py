"""Fair shares cost SQLite nothing while nobody floods; its limits hold from the first post."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import OutboxFullError, TooManyPendingError
from service.outbox.limits import FairShare
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.storage import LIMITS, append_all, event

SMALL = FairShare(noisy_rows=50)


async def test_nobody_is_marked_while_many_have_few(tmp_path: Path) -> None:
    async with open_sqlite_outbox(tmp_path / "outbox.db", **LIMITS, fair_share=SMALL) as outbox:
        for number in range(20):
            await append_all(outbox, 10, f"u-{number}")
        assert not outbox.claims.picker.may_have_fair_share


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
