"""Claims on an SQLite outbox that are cancelled as they come: no row is left delivering."""

from __future__ import annotations

import asyncio

import pytest

from service.outbox.sqlite.store import SqliteOutbox
from tests.support.storage import PATIENCE_SECONDS, append_all, ask, claim, eventually


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
    await eventually(lambda: asyncio.sleep(0, outbox.commits.count > groups))

    async def released() -> bool:
        stats = await outbox.inspector.stats()
        return (stats.pending, stats.delivering) == (5, 0)

    await eventually(released)
