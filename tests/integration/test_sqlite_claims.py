"""Claims on an SQLite outbox: cancelled as they come, and beside posts that come one by one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from service.outbox.sqlite.timings import ClaimPace
from tests.support.storage import (
    LIMITS,
    PATIENCE_SECONDS,
    PATIENT_WRITER,
    append_all,
    ask,
    claim,
    event,
    eventually,
)


async def test_a_claim_that_came_as_it_was_cancelled_is_released(outbox: SqliteOutbox) -> None:
    await append_all(outbox, 5)
    waiting = asyncio.create_task(outbox.queue.claim(ask()))
    await asyncio.sleep(0)
    [(_, future)] = outbox.writer._waiting.claims
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not future.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def released() -> bool:
        return (await outbox.inspector.stats()).delivering == 0

    await eventually(released)
    assert [entry.sends for entry in (await claim(outbox)).entries] == [0] * 5


async def test_a_cancelled_claim_leaves_no_row_delivering_without_another_claim(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 5)
    waiting = asyncio.create_task(outbox.queue.claim(ask()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not ((group := outbox.writer.watchdog.group) and group.claims):  # noqa: ASYNC110
            await asyncio.sleep(0)
    groups = outbox.commits.count
    waiting.cancel()
    await eventually(lambda: outbox.commits.count > groups)

    async def released() -> bool:
        stats = await outbox.inspector.stats()
        return (stats.pending, stats.delivering) == (5, 0)

    await eventually(released)


async def test_claims_beside_many_posts_are_few_and_large(path: Path) -> None:
    pace = ClaimPace(busy_appends_per_second=1, pause_seconds=1.0, longest_seconds=1.0)
    timings, batches = replace(PATIENT_WRITER, pace=pace), list[int]()
    async with open_sqlite_outbox(path, **LIMITS, timings=timings) as outbox:

        async def drain() -> None:
            while sum(batches) < 20:
                batches.append(len((await claim(outbox, ask(500))).entries))

        draining = asyncio.create_task(drain())
        for _ in range(20):
            await outbox.intake.append(event())
        await draining
    assert len(batches) < 10
