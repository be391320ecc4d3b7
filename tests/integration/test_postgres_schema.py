"""Migrating a PostgreSQL outbox, and running on a schema that a later version has migrated."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import psycopg
import pytest

from service.config.outbox_url import url_in_schema
from service.errors import OutboxUnavailableError
from service.outbox.postgres.recount import RECOUNT
from service.outbox.postgres.seal import PostgresSeal
from service.outbox.schema import known_ids, migrate, migration_files, pending
from service.outbox.schema_postgresql import PostgresSchema
from tests.support.fleet import environment, running
from tests.support.postgres_rows import append_rows, pass_rows_through
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, append_all, claim, deliver

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "postgresql.md"
CHECKS = re.compile(r"^ALTER TABLE .* CONSTRAINT .*;$", re.MULTILINE)


async def test_a_version_serves_an_outbox_of_the_next_schema(postgres: PostgresServer) -> None:
    number = int(known_ids()[-1].partition("_")[0]) + 1
    with postgres.database("upgraded") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE outbox ADD COLUMN later text")
            connection.execute(
                "INSERT INTO outbox_migrations (id) VALUES (%s)", (f"{number:04}_next",)
            )
        assert (pending(url), migrate(url)) == ([], [])
        async with PostgresStorage(url).open() as outbox:
            await append_all(outbox, 2)
            assert await deliver(outbox, await claim(outbox)) == 0
            assert (await outbox.inspector.stats()).delivered == 2


@pytest.mark.parametrize("checked", [False, True])
def test_an_outbox_with_rows_gets_partitions_and_keeps_rows_numbers_and_seal(
    postgres: PostgresServer, *, checked: bool
) -> None:
    """Also when its rows were checked before, as the documentation says."""
    states = "SELECT state, count(*), min(seq), max(seq) FROM outbox_rows GROUP BY 1 ORDER BY 1"
    first = migration_files("postgresql")[0]
    with postgres.database("filled") as url:
        PostgresSchema(url).apply([(first.stem, first.read_text())])
        pass_rows_through(url, 300)
        append_rows(url, 200)
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in CHECKS.findall(PAGE.read_text()) if checked else ():
                connection.execute(statement)
            PostgresSeal(connection).put_on()
            before = connection.execute(states).fetchall()
            assert migrate(url) == known_ids()[1:]
            assert connection.execute(states).fetchall() == before
            assert connection.execute(RECOUNT).fetchall() == [(0,)]
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                append_rows(url, 1)
            PostgresSeal(connection).take_off()
            append_rows(url, 1)
            assert connection.execute("SELECT max(seq) FROM outbox").fetchall() == [(501,)]


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
        with psycopg.connect(url) as connection, pytest.raises(psycopg.Error):
            connection.execute("SELECT nothing")
        assert "ERROR" in log.read_bytes()[before:].decode()


@pytest.mark.slow
async def test_processes_that_migrate_at_once_apply_each_migration_once(
    postgres: PostgresServer,
) -> None:
    first = migration_files("postgresql")[0]
    with postgres.database("at_once") as url:
        PostgresSchema(url).apply([(first.stem, first.read_text())])
        append_rows(url, 200)
        said = await asyncio.gather(*(applied_by_a_process(url) for _ in range(4)))
        applied = sorted(line for lines in said for line in lines)
        assert applied == [f"applied {one}" for one in known_ids()[1:]]
        async with PostgresStorage(url).open() as outbox:
            assert outbox.undelivered == 200


async def applied_by_a_process(url: str) -> list[str]:
    settings = environment(url, "http://127.0.0.1:1")
    async with running("migrate", environment=settings, ready="appl") as process:
        assert await process.ended() == 0
    return [line.strip() for line in process.lines if line.startswith("applied")]


@pytest.mark.parametrize("schema", [None, "queue"])
def test_who_may_append_in_sql_still_may_after_the_migrations(
    postgres: PostgresServer, schema: str | None
) -> None:
    home = schema or "outbox"
    with postgres.database("granted") as plain:
        url = url_in_schema(plain, schema) if schema else plain
        first = migration_files("postgresql")[0]
        PostgresSchema(url).apply([(first.stem, first.read_text())])
        with psycopg.connect(plain, autocommit=True) as owner:
            owner.execute('CREATE ROLE "my shop" LOGIN; CREATE ROLE other LOGIN')
            try:
                owner.execute(f'GRANT USAGE ON SCHEMA {home} TO "my shop", other')
                owner.execute(f'GRANT EXECUTE ON FUNCTION {home}.append TO "my shop"')
                migrate(url)
                may = "SELECT has_function_privilege(%s, %s::regproc::oid, 'EXECUTE')"
                for role, expected in (("my shop", True), ("other", False)):
                    answer = owner.execute(may, [role, f"{home}.append"]).fetchall()
                    assert answer == [(expected,)]
            finally:
                owner.execute('DROP OWNED BY "my shop", other; DROP ROLE "my shop", other')


@pytest.mark.soak
async def test_a_migration_gives_up_a_lock_that_others_would_wait_behind(
    postgres: PostgresServer,
) -> None:
    migration = ("0001_first", "ALTER TABLE held ADD COLUMN more text")
    with postgres.database("locked") as url, psycopg.connect(url) as holder:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE held ()")
        holder.execute("LOCK TABLE held IN SHARE MODE")
        with pytest.raises(OutboxUnavailableError, match="lock timeout"):
            await asyncio.to_thread(PostgresSchema(url).apply, [migration])
        assert PostgresSchema(url).applied() == set()
