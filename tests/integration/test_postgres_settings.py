"""What a database administrator finds set: connections and their names, sessions, autovacuum."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from service.outbox.postgres.executor import MAX_CONNECTIONS
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PATIENCE_SECONDS, PostgresStorage, append_all, claim, event

OURS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %s
"""
SESSION = """
SELECT current_setting('jit'), current_setting('lock_timeout'),
       current_setting('statement_timeout'),
       current_setting('idle_in_transaction_session_timeout')
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
HOT = ("outbox_ready", "outbox_claims", "outbox_sent", "outbox_changes")


@pytest.mark.parametrize(("address", "name"), [("", "outbox"), ("&application_name=mine", "mine")])
async def test_a_service_has_at_most_its_connections_under_one_name(
    postgres_url: str, address: str, name: str
) -> None:
    async with PostgresStorage(f"{postgres_url}{address}").open() as outbox:
        ask = outbox.pool.ask
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as looking,
        ):
            seen = {0}
            while max(seen) < MAX_CONNECTIONS:
                slow = [ask("SELECT pg_sleep(0.3)", often=True) for _ in range(2 * MAX_CONNECTIONS)]
                appends = (outbox.intake.append(event()) for _ in range(100))
                work = asyncio.gather(*slow, *appends, return_exceptions=True)
                while not work.done():
                    cursor = await looking.execute(OURS, [name])
                    seen |= {count for (count,) in await cursor.fetchall()}
                    await asyncio.sleep(0.01)
    assert max(seen) <= MAX_CONNECTIONS + 1  # and the one that listens


async def test_a_session_has_its_timeouts_and_no_jit(postgres_url: str) -> None:
    """A claim among millions of rows looks costly to the planner; compiling it takes longer."""
    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 1)
        assert await outbox.pool.ask(SESSION) == [("off", "1500ms", "12s", "15s")]


@pytest.mark.parametrize("table", HOT)
def test_autovacuum_comes_early_to_a_table_of_many_deletions(postgres_url: str, table: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        cursor = connection.execute(DEAD_AT_MOST, {"live": 1_000_000, "table": table})
        [(dead_rows, delay_ms)] = cursor.fetchall()
        assert dead_rows <= 15_000
        assert delay_ms <= 1


async def test_a_table_of_the_same_name_in_another_schema_is_not_used(
    postgres: PostgresServer,
) -> None:
    """The schema named as the role comes first in PostgreSQL's search_path."""
    with postgres.database("shadowed") as url:
        migrate(url)
        async with PostgresStorage(url).open() as outbox:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE TABLE outbox.outbox_ready (LIKE public.outbox_ready)")
            await append_all(outbox, 2)
            assert len((await claim(outbox)).entries) == 2
            assert (await outbox.inspector.stats()).delivering == 2


async def test_a_direct_session_prepares_its_statements(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        for _ in range(10 * MAX_CONNECTIONS):
            await append_all(outbox, 1)
        count = "SELECT count(*) FROM pg_prepared_statements"
        prepared = [await outbox.pool.ask(count) for _ in range(MAX_CONNECTIONS)]
        assert max(prepared) > [(0,)]
