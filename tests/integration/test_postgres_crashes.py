"""A PostgreSQL server that crashes and starts again: posts fail soon, nothing accepted is lost."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Settlement
from tests.support.postgres_server import PostgresServer
from tests.support.posting import Posting, can_append, fails_soon, stored
from tests.support.storage import (
    PATIENCE_SECONDS,
    PostgresStorage,
    append_all,
    ask,
    claim,
    deliver,
    eventually,
    ids,
)


async def test_posts_fail_soon_while_the_database_is_away_and_pass_when_it_is_back(
    crashable: PostgresServer, crashable_url: str
) -> None:
    async with PostgresStorage(crashable_url).open() as outbox:
        [first] = await append_all(outbox, 1)
        await asyncio.to_thread(crashable.crash)
        try:
            await fails_soon(outbox)
            assert outbox.failure
            with pytest.raises(OutboxUnavailableError):
                await outbox.intake.find(first.id)
            await asyncio.gather(*(fails_soon(outbox) for _ in range(50)))
        finally:
            await asyncio.to_thread(crashable.start)

        async def back() -> bool:
            return await can_append(outbox)

        await eventually(back)
        assert outbox.failure is None
        assert await outbox.intake.find(first.id)


async def test_an_immediate_restart_under_load_loses_and_doubles_nothing(
    crashable: PostgresServer, crashable_url: str
) -> None:
    async with PostgresStorage(crashable_url).open() as outbox:
        posting = Posting(outbox)
        async with posting.under_way():
            for _ in range(2):
                await posting.more()
                await asyncio.to_thread(crashable.crash)
                await asyncio.to_thread(crashable.start)
            await posting.more()
        found = await stored(outbox)
        assert set(posting.accepted) <= set(found)
        assert len(found) == len(set(found))


async def test_a_waiting_claim_outlives_a_restart(
    crashable: PostgresServer, crashable_url: str
) -> None:
    async with PostgresStorage(crashable_url).open() as outbox:

        async def claim_until_given() -> list[str]:
            while True:
                try:
                    return ids(await outbox.queue.claim(ask()))
                except OutboxUnavailableError:
                    await asyncio.sleep(0.05)

        waiting = asyncio.create_task(claim_until_given())
        await asyncio.to_thread(crashable.crash)
        await asyncio.to_thread(crashable.start)

        async def appended() -> bool:
            return await can_append(outbox)

        await eventually(appended)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting


@pytest.mark.slow
async def test_settling_is_possible_after_the_database_came_back(
    crashable: PostgresServer, crashable_url: str
) -> None:
    async with PostgresStorage(crashable_url).open() as outbox:
        await append_all(outbox, 2)
        batch = await claim(outbox)
        await asyncio.to_thread(crashable.crash)
        with pytest.raises(OutboxUnavailableError):
            await deliver(outbox, batch)
        await asyncio.to_thread(crashable.start)

        async def settled() -> bool:
            try:
                return await deliver(outbox, batch) == 0
            except OutboxUnavailableError:
                return False

        await eventually(settled)
        seqs = [entry.seq for entry in batch.entries]
        assert await outbox.queue.settle(Settlement(batch.claim, delivered=seqs)) == 2
