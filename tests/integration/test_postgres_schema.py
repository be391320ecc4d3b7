"""Migrating a PostgreSQL outbox, and running on a schema that a later version has migrated."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from inngest_outbox.config.outbox_url import url_in_schema
from inngest_outbox.errors import OutboxUnavailableError, SchemaTooOldError
from inngest_outbox.outbox.postgres.database.schema import PostgresSchema, fault_of_others
from inngest_outbox.outbox.schema import known_ids, migrate, pending
from tests.support.postgres_server import PostgresServer
from tests.support.service_command import service_command
from tests.support.storage import PostgresStorage, append_all, claim, deliver, event

# A function of the schema that PostgreSQL would prefer to its own, which takes any number of texts.
OVERLOAD = """
CREATE FUNCTION {schema}.concat_ws(text, text, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ran as %', current_user;
END
$$
"""
ENCRYPTED = '{"encrypted": {"__ENCRYPTED__": true, "data": "eA=="}}'
# `fault` runs in append and append_many alone, with their path.
UNPROTECTED = """
SELECT proname FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace
WHERE nspname = %s AND proname NOT IN ('fault', 'user_of')  -- they name the schema of all they use
  AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY(proconfig), false)
"""
WITHOUT_KEY = """
SELECT relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE nspname = %s AND relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
"""


async def test_a_version_serves_an_outbox_of_the_next_schema(postgres: PostgresServer) -> None:
    number = int(known_ids("postgresql")[-1].partition("_")[0]) + 1
    with postgres.database("upgraded") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE outbox.events ADD COLUMN later text")
            record = "INSERT INTO outbox.migrations (id) VALUES (%s)"
            connection.execute(record, (f"{number:04}_next",))
        assert (pending(url), migrate(url)) == ([], [])
        async with PostgresStorage(url).open() as outbox:
            await append_all(outbox, 2)
            assert await deliver(outbox, await claim(outbox)) == 0
            assert (await outbox.inspector.stats()).delivered == 2


def test_an_outbox_of_before_0_1_0_is_refused_and_left_as_it_is(postgres: PostgresServer) -> None:
    with postgres.database("early") as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.outbox_migrations (id text PRIMARY KEY)")
        connection.execute("INSERT INTO public.outbox_migrations VALUES ('0001_outbox')")
        for look in (migrate, pending):
            with pytest.raises(SchemaTooOldError, match=r"0\.1\.0"):
                look(url)
        there = "SELECT to_regnamespace('outbox')"
        assert connection.execute(there).fetchall() == [(None,)]


def test_all_migrations_of_a_version_are_applied_or_none(postgres: PostgresServer) -> None:
    migrations = [("0001_good", "CREATE TABLE outbox.good ()"), ("0002_bad", "CREATE nothing")]
    with postgres.database("failing") as url:
        with pytest.raises(OutboxUnavailableError, match="syntax error"):
            PostgresSchema(url).apply(migrations)
        assert PostgresSchema(url).applied() == set()
        with psycopg.connect(url) as connection:
            there = "SELECT to_regnamespace('outbox')"
            assert connection.execute(there).fetchall() == [(None,)]


async def test_a_first_and_a_second_start_leave_no_error_in_the_server_s_log(
    postgres: PostgresServer,
) -> None:
    log = postgres.folder / "log"
    with postgres.database("quiet") as url:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute("ALTER DATABASE quiet SET log_min_messages = 'warning'")
        before = log.stat().st_size
        for _ in range(2):
            async with PostgresStorage(url).open() as outbox:
                await append_all(outbox, 1)
                await deliver(outbox, await claim(outbox))
        said = log.read_bytes()[before:].decode()
        assert "ERROR" not in said
        assert "WARNING" not in said


SETTINGS = (
    "search_path = ''",
    "standard_conforming_strings = off",
    "client_encoding = LATIN1",
    "array_nulls = off",
)


async def test_settings_of_the_database_change_nothing(postgres: PostgresServer) -> None:
    with postgres.database("set_up") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in SETTINGS:
                connection.execute(f"ALTER DATABASE set_up SET {setting}".encode())
        async with PostgresStorage(url).open() as outbox:
            await outbox.intake.append(event("u-1", name="漢"))
            with psycopg.connect(url, autocommit=True) as connection:
                key = "idempotency_key => 'visible!~'"
                connection.execute(f"SELECT outbox.append('n', '{{}}', {key})".encode())
                with pytest.raises(psycopg.Error, match="visible ASCII"):
                    connection.execute("SELECT outbox.append('n', '{}', idempotency_key => ' ')")
            taken = 0
            while taken < 2:
                taken += len((await claim(outbox)).entries)


async def test_who_may_create_in_the_schema_is_told_and_runs_no_code_as_the_service(
    postgres: PostgresServer,
) -> None:
    with (
        postgres.database("shared") as plain,
        psycopg.connect(plain, autocommit=True) as owner,
    ):
        owner.execute("CREATE ROLE guest LOGIN")
        try:
            for home in ("outbox", "queue"):
                url = url_in_schema(plain, home)
                settings = {"OUTBOX_URL": plain, "OUTBOX_SCHEMA": home}
                assert service_command("migrate", **settings).stdout.startswith("applied 0001_")
                assert fault_of_others(url) is None
                assert owner.execute(UNPROTECTED, (home,)).fetchall() == []
                assert owner.execute(WITHOUT_KEY, (home,)).fetchall() == []
                owner.execute(f"GRANT CREATE, USAGE ON SCHEMA {home} TO guest".encode())
                guest = plain.replace("outbox@", "guest@")
                with psycopg.connect(guest, autocommit=True) as other:
                    other.execute(OVERLOAD.format(schema=home).encode())
                assert "guest may create" in (fault_of_others(url) or "")
                owner.execute(f"SELECT {home}.append('n', '{ENCRYPTED}', 'u-1')".encode())
                async with PostgresStorage(url).open() as outbox:
                    assert len((await claim(outbox)).entries) == 1
            owner.execute("DROP SCHEMA outbox CASCADE")
            told = await asyncio.to_thread(service_command, "check", **settings)
            assert told.exit_code == 1
            assert "outbox: guest may create objects" in told.stderr
            assert "encryption: 1 waiting event needs another key" in told.stderr
        finally:
            owner.execute("DROP OWNED BY guest; DROP ROLE guest")


@pytest.mark.soak
async def test_a_migration_gives_up_a_lock_that_others_would_wait_behind(
    postgres: PostgresServer,
) -> None:
    migration = ("0001_first", "ALTER TABLE public.held ADD COLUMN more text")
    with postgres.database("locked") as url, psycopg.connect(url) as holder:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE held ()")
        holder.execute("LOCK TABLE held IN SHARE MODE")
        with pytest.raises(OutboxUnavailableError, match="lock timeout"):
            await asyncio.to_thread(PostgresSchema(url).apply, [migration])
        assert PostgresSchema(url).applied() == set()
