"""A PostgreSQL server that crashes and starts again: posts fail soon, nothing accepted is lost."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import OutboxUnavailableError
from tests.support.postgres_server import PostgresServer
from tests.support.posting import can_append, fails_soon
from tests.support.storage import (
    PATIENCE_SECONDS,
    PostgresStorage,
    append_all,
    ask,
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
        await eventually(lambda: can_append(outbox))
        assert outbox.failure is None
        assert await outbox.intake.find(first.id)


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
        await eventually(lambda: can_append(outbox))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting
