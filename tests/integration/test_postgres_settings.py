"""What an administrator finds set, what an event costs, and the roles that may do nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from typer.testing import CliRunner

from bench.postgres import BASELINE, costs
from inngest_outbox.config.outbox_url import url_in_schema
from inngest_outbox.console.commands.main import app
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Dead, Settlement
from inngest_outbox.outbox.postgres.database.connection import OutboxConnection, set_up
from inngest_outbox.outbox.postgres.database.executor import MAX_CONNECTIONS
from inngest_outbox.outbox.schema import migrate, pending
from tests.support.named_rows import named
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PATIENCE_SECONDS, PostgresStorage, append_all, claim, event

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


def test_autovacuum_comes_early_to_a_table_of_many_deletions(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        for table in HOT:
            cursor = connection.execute(DEAD_AT_MOST, {"live": 1_000_000, "table": table})
            [(dead_rows, delay_ms)] = cursor.fetchall()
            assert dead_rows <= 15_000, table
            assert delay_ms <= 1, table


ROLES = Path(__file__).parents[2] / "deploy/postgresql/roles.sql"


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """A database with both roles, as a superuser sees it."""
    with postgres.database("roles") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(2):
                connection.execute(ROLES.read_bytes())
        yield url
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE outbox_owner; DROP ROLE outbox_runner")


def as_role(url: str, role: str) -> str:
    return url.replace("outbox@", f"{role}@")


async def test_the_runner_does_all_that_a_service_does_and_nothing_else(database: str) -> None:
    migrate(as_role(database, "outbox_owner"))
    runner = as_role(database, "outbox_runner")
    async with PostgresStorage(runner).open() as outbox:
        await append_all(outbox, 3)
        batch = await claim(outbox)
        one, two, three = (entry.seq for entry in batch.entries)
        dead = [Dead(two, 1, "rejected", "")]
        await outbox.queue.settle(Settlement(batch.claim, delivered=[one], sent=[three], dead=dead))
        await outbox.confirmations.confirm([three])
        await outbox.repairs.replay(await named(outbox.inspector), actor="ada")
        await outbox.repairs.discard(await named(outbox.inspector), actor="ada")
        await outbox.repairs.purge(older_than_seconds=-1, actor="ada")
        await outbox.repairs.set_paused(paused=True, actor="ada")
        await outbox.scopes.save_scope("user", "u-1", {})
        assert (await outbox.inspector.stats()).database_bytes
    with psycopg.connect(runner, autocommit=True) as connection:
        for statement in (
            "DROP TABLE outbox.events",
            "TRUNCATE outbox.ready",
            "CREATE TABLE outbox.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    with psycopg.connect(runner) as connection:  # a role that only connects may hold any such lock
        connection.execute("SELECT outbox.keep_ids('{}', '{a,b}', '{o,o}', '{}', 0)")
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.execute(locks).fetchone() == (0,)


async def test_a_schema_of_its_own_is_made_by_the_first_migration(
    postgres: PostgresServer,
) -> None:
    with postgres.database("schema") as plain:
        url = url_in_schema(plain, "queue")
        migrate(url)
        assert not pending(url)
        assert pending(plain)
        async with PostgresStorage(url).open() as outbox:
            await append_all(outbox, 1)
            with psycopg.connect(plain, autocommit=True) as connection:
                tables = connection.execute(
                    "SELECT DISTINCT schemaname FROM pg_tables "
                    "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
                ).fetchall()
                assert tables == [("queue",)]
                connection.execute("SELECT queue.append('n', '{}')")
            assert (await outbox.inspector.stats()).pending == 2
        said = await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["stats", "--json", "--url", plain],
            env={"OUTBOX_SCHEMA": "queue"},
        )
        assert msgspec.json.decode(said.stdout)["pending"] == 2


def test_a_database_of_another_encoding_is_refused_in_plain_words(
    postgres: PostgresServer,
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            with pytest.raises(OutboxUnavailableError, match="encoding SQL_ASCII"):
                migrate(postgres.url("ascii"))
        finally:
            connection.execute("DROP DATABASE ascii")


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
