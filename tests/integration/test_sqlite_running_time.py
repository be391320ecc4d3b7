"""A clock that was wrong for a while: nothing is purged, and no key is freed, before its time."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import pytest

from inngest_outbox.outbox.figures import Sample
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Settlement
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.storage import LIMITS, append_all, claim, deliver, event

DAY = 86_400.0
MONTH = 30 * DAY
KEY = IdempotencyKey("k", bytes(32), lifetime_seconds=DAY)


class Clocks:
    """The wall clock and the running time, which a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = self.ran = 0.0
        wall, running = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: wall() + self.ahead)
        monkeypatch.setattr(time, "monotonic", lambda: running() + self.ran)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


async def purged(outbox: SqliteOutbox, older_than: float = 7 * DAY) -> int:
    return await outbox.repairs.purge(older_than_seconds=older_than, actor=None)


async def test_a_boot_with_the_clock_ahead_purges_nothing_that_was_just_delivered(
    path: Path, clocks: Clocks
) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        clocks.ran += 2 * DAY
        await append_all(outbox, 3)
        batch = await claim(outbox)
        *seqs, last = (entry.seq for entry in batch.entries)
        await outbox.queue.settle(Settlement(batch.claim, delivered=seqs, sent=[last]))
        assert await outbox.confirmations.confirm([last]) == 1
    clocks.ahead = MONTH
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert await outbox.repairs.purge_payloads(older_than_seconds=7 * DAY) == 0
        assert await purged(outbox) == 0
        clocks.ran += DAY - 60
        assert await purged(outbox) == 0
        clocks.ran += 120
        assert await purged(outbox) == 3


async def test_running_time_is_summed_over_starts(path: Path, clocks: Clocks) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 1)
        assert await deliver(outbox, await claim(outbox)) == 0
    clocks.ahead = MONTH
    for _ in range(3):
        async with open_sqlite_outbox(path, **LIMITS) as outbox:
            assert await purged(outbox) == 0
            clocks.ran += DAY / 3 + 1
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert await purged(outbox) == 1


async def test_a_killed_service_has_run_at_least_until_it_settled_its_last_rows(
    path: Path, tmp_path: Path, clocks: Clocks
) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 1)
        clocks.ran = clocks.ahead = 50
        assert await deliver(outbox, await claim(outbox)) == 0
        killed = tmp_path / "killed"
        shutil.copytree(path.parent, killed, ignore=shutil.ignore_patterns("killed"))
    async with open_sqlite_outbox(killed / path.name, **LIMITS) as outbox:
        assert await purged(outbox, 0) == 1


async def test_a_retention_of_less_than_a_day_needs_no_day(path: Path, clocks: Clocks) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 2)
        assert await deliver(outbox, await claim(outbox)) == 0
        clocks.ran = clocks.ahead = 100
        assert await purged(outbox, 60) == 2


async def test_a_boot_with_the_clock_ahead_frees_no_key(path: Path, clocks: Clocks) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        first = await outbox.intake.append(event(), key=KEY)
    clocks.ahead = MONTH
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert (await outbox.intake.append(event(), key=KEY)).event_id == first.event_id
        clocks.ahead = 0.0  # put right while it runs
        other = msgspec.structs.replace(KEY, key="other")
        second = await outbox.intake.append(event(), key=other)
        assert (await outbox.intake.append(event(), key=other)).event_id == second.event_id
        clocks.ran += DAY + 60
        clocks.ahead += DAY + 60
        assert (await outbox.intake.append(event(), key=KEY)).event_id != first.event_id
        assert (await outbox.intake.append(event(), key=other)).event_id != second.event_id


async def test_the_ages_of_rows_are_kept_each_hour_for_a_day(path: Path, clocks: Clocks) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        for hour in range(30):
            clocks.ran += 3600
            await append_all(outbox, 1)
            await outbox.samples.add(Sample(hour * 60_000, 0, 0, 0.0, 0.0, "healthy", ""))
        ages = outbox.intake._state._ages
        assert len(ages) in (25, 26)
        assert [upto for _, upto in ages][-1] == 30


async def test_a_row_that_came_after_an_hour_was_noted_is_younger_than_that(
    path: Path, clocks: Clocks
) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        clocks.ran += DAY + 60
        await outbox.intake.append(event(), key=KEY)
    clocks.ahead = MONTH
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert (await outbox.intake.append(event(), key=KEY)).replayed
