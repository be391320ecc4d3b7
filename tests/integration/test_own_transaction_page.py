"""The documentation's example of an event inside the application's own transaction."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

from tests.support.storage import PostgresStorage, claim

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "own-transaction.md"


async def test_the_event_of_the_example_is_delivered_after_its_commit(postgres_url: str) -> None:
    marked = PAGE.read_text(encoding="utf-8").split("<!-- check: own transaction -->\n```sql\n")[1]
    async with PostgresStorage(postgres_url).open() as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(marked.split("```")[0].encode())
        batch = await claim(outbox)
    event = json.loads(batch.payloads)
    assert (event["name"], event["data"]) == ("documents/saved", {"documentName": "q3.pdf"})
