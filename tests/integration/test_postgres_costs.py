from __future__ import annotations

import asyncio
import json
from typing import Any

from bench.postgres import BASELINE, costs
from service.outbox.model import Settlement
from tests.support.storage import PostgresStorage, append_all, claim


async def test_an_event_costs_the_statements_of_the_baseline(postgres_url: str) -> None:
    """Change the baseline knowingly: `python -m bench.postgres --write`."""
    async with PostgresStorage(postgres_url).open() as outbox:
        assert await costs(outbox) == json.loads(BASELINE.read_text())


async def test_parts_of_a_claim_that_are_answered_together_are_settled_together(
    postgres_url: str,
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 20)
        batch = await claim(outbox)
        named, run = list[str](), outbox.pool.run

        async def noted(statement: str, *given: Any, **options: Any) -> Any:
            named.append(statement)
            return await run(statement, *given, **options)

        outbox.pool.run = noted
        parts = [Settlement(batch.claim, delivered=[entry.seq]) for entry in batch.entries]
        assert await asyncio.gather(*map(outbox.queue.settle, parts)) == [0] * 20
    assert named.count("SETTLE") == 1
