"""The tables stay as large as what they hold, however many events go through."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from service.outbox.postgres.partitions import PartitionPolicy, PostgresPartitions
from service.outbox.postgres.pool import PostgresPool
from service.outbox.schema import migrate
from tests.support.postgres_rows import pass_rows_through
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, eventually

ROUND = 100_000
QUICK_ROUND = 3_000
DROPPED = """
SELECT sum(pg_total_relation_size(relid)), count(*)
FROM pg_partition_tree('outbox') WHERE isleaf
"""
OPEN = "SELECT max(number) FROM outbox_partitions WHERE opened_at IS NOT NULL"
SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relname LIKE 'outbox%' AND relkind = 'r'
"""


async def test_events_that_were_delivered_long_ago_take_no_room_though_nothing_vacuums(
    postgres: PostgresServer,
) -> None:
    seen = []
    often = PartitionPolicy(share=0, least_seconds=0, least_rows=QUICK_ROUND)
    with postgres.database("dropping") as url:
        migrate(url)
        async with PostgresPool(url) as pool:
            partitions = PostgresPartitions(pool, often)
            dropped = 0
            for number in range(5):
                await asyncio.to_thread(pass_rows_through, url, QUICK_ROUND)

                async def all_but_the_last(rounds: int = number) -> bool:
                    """Closed and dropped, which a busy machine may put off."""
                    nonlocal dropped
                    dropped += await partitions.drop_expired(0)
                    [(is_open,)] = await pool.ask(OPEN)
                    return (is_open, dropped) == (rounds + 1, rounds * QUICK_ROUND)

                await eventually(all_but_the_last)
                seen += await pool.ask(DROPPED)
    sizes = [int(size) for size, _ in seen]
    assert sizes[-1] <= sizes[1] * 1.1
    assert [leaves for _, leaves in seen[1:]] == [3] * 4  # kept, closed, open


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
