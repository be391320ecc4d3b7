"""What a database administrator finds set: connections and their names, sessions, autovacuum."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from service.outbox.postgres.database.connection import OutboxConnection, set_up
from service.outbox.postgres.database.executor import MAX_CONNECTIONS
from tests.support.storage import PATIENCE_SECONDS, PostgresStorage, event

OURS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %s
"""
SESSION = """
SELECT current_setting('jit'), current_setting('lock_timeout'),
       current_setting('statement_timeout'),
       current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'),
       current_setting('standard_conforming_strings')
"""
# After how many dead rows among so many live ones autovacuum begins.
DEAD_AT_MOST = """
SELECT (settings ->> 'autovacuum_vacuum_threshold')::float8
       + (settings ->> 'autovacuum_vacuum_scale_factor')::float8 * %(live)s,
       (settings ->> 'autovacuum_vacuum_cost_delay')::float8
FROM pg_class, LATERAL (
    SELECT jsonb_object_agg(split_part(one, '=', 1), split_part(one, '=', 2)) AS settings
    FROM unnest(reloptions) AS one
) AS told WHERE oid = %(table)s::regclass
"""
HOT = ("outbox.ready", "outbox.claims", "outbox.sent", "outbox.changes", "outbox.inbox")


@pytest.mark.parametrize(("address", "name"), [("", "outbox"), ("&application_name=mine", "mine")])
async def test_a_service_has_at_most_its_connections_under_one_name(
    postgres_url: str, address: str, name: str
) -> None:
    async with (
        PostgresStorage(f"{postgres_url}{address}").open() as outbox,
        asyncio.timeout(PATIENCE_SECONDS),
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as looking,
    ):
        seen = {0}
        while max(seen) < MAX_CONNECTIONS:
            looks = [outbox.intake.find(str(n)) for n in range(3 * MAX_CONNECTIONS)]
            appends = (outbox.intake.append(event()) for _ in range(10))
            work = asyncio.gather(*looks, *appends, return_exceptions=True)
            while not work.done():
                cursor = await looking.execute(OURS, [name])
                seen |= {count for (count,) in await cursor.fetchall()}
                await asyncio.sleep(0.01)
    assert max(seen) <= MAX_CONNECTIONS


async def test_a_session_has_its_timeouts_no_jit_and_no_schema_of_others(postgres_url: str) -> None:
    """A claim among millions of rows looks costly to the planner; compiling it takes longer."""
    async with await OutboxConnection.connect(postgres_url, autocommit=True) as connection:
        await set_up(connection)
        cursor = await connection.execute(SESSION)
        assert await cursor.fetchall() == [
            ("off", "1500ms", "12s", "15s", "pg_catalog, pg_temp", "on")
        ]


@pytest.mark.parametrize("table", HOT)
def test_autovacuum_comes_early_to_a_table_of_many_deletions(postgres_url: str, table: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        cursor = connection.execute(DEAD_AT_MOST, {"live": 1_000_000, "table": table})
        [(dead_rows, delay_ms)] = cursor.fetchall()
        assert dead_rows <= 15_000
        assert delay_ms <= 1
