from __future__ import annotations

import json

from bench.postgres import BASELINE, costs
from tests.support.storage import PostgresStorage


async def test_an_event_costs_the_statements_of_the_baseline(postgres_url: str) -> None:
    """Change the baseline knowingly: `python -m bench.postgres --write`."""
    async with PostgresStorage(postgres_url).open() as outbox:
        assert await costs(outbox) == json.loads(BASELINE.read_text())
