"""The newest rows' share of an SQLite claim: only of what came lately."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.outbox.clock import Clock
from service.outbox.sqlite.fresh import PERIOD_MS
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.storage import append_all, ask, claim, ids


async def test_what_waited_before_the_start_or_for_minutes_is_not_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_pending": 100, "max_pending_per_user": 100}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        old = [each.id for each in await append_all(outbox, 12)]
    later_ms, now_ms = 0, Clock.now_ms
    monkeypatch.setattr(Clock, "now_ms", lambda clock: now_ms(clock) + later_ms)
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        wanted = ask(4, fresh_share=0.5, lease_seconds=9999)
        assert ids(await claim(outbox, wanted)) == old[:4]
        new = [each.id for each in await append_all(outbox, 3)]
        assert ids(await claim(outbox, wanted)) == [*old[4:6], *new[1:]]
        newest = ask(1, fresh_share=1.0, lease_seconds=9999)
        assert ids(await claim(outbox, newest)) == new[:1]
        await append_all(outbox, 1)
        for _ in range(3):
            later_ms += PERIOD_MS
            last = await claim(outbox, ask(1, fresh_share=0.5, lease_seconds=9999))
        assert ids(last) == old[8:9]
        assert ids(await claim(outbox, ask(2, fresh_share=0.5))) == old[9:11]
