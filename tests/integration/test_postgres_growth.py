"""The tables stay as large as what they hold, however many events go through (make soak)."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from service.outbox.schema import migrate
from tests.support.postgres_rows import pass_rows_through
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage

ROUND = 100_000
SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relname LIKE 'outbox%' AND relkind = 'r'
"""


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_tables_do_not_grow_while_retention_removes_what_was_delivered(
    postgres: PostgresServer,
) -> None:
    sizes = []
    with postgres.database("growing") as url:
        migrate(url)
        async with PostgresStorage(url).open(
            max_pending=10**9, max_pending_per_user=10**9
        ) as outbox:
            for _ in range(5):
                await asyncio.to_thread(pass_rows_through, url, ROUND)
                assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == ROUND
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("VACUUM")
                    sizes += [int(size) for (size,) in connection.execute(SIZE)]
    assert sizes[-1] <= sizes[1] * 1.2
