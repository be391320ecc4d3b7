"""How migrations are applied to a PostgreSQL database: where, in turn, whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from service.config.outbox_url import url_in_schema
from service.errors import OutboxUnavailableError
from service.outbox.schema_postgresql import PostgresSchema
from tests.support.postgres_server import PostgresServer
from tests.support.storage import eventually

FIRST = ("0001_first", "CREATE TABLE first (x integer)")
SECOND = ("0002_second", "CREATE TABLE second AS SELECT current_setting('lock_timeout') AS timeout")
SLOW = ("0001_slow", "SELECT pg_sleep(1.2)")
BAD = ("0002_bad", "CREATE TABLE half (x integer); INSERT INTO nowhere VALUES (1)")
LOCK = int.from_bytes(b"outbox")
HOLD = "SELECT pg_advisory_xact_lock(%s)"
WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
HOMES = """
SELECT nspname FROM pg_namespace
WHERE nspname NOT LIKE 'pg\\_%%' AND nspname <> 'information_schema' ORDER BY 1
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
_numbers = itertools.count(1)

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def plain_url(postgres: PostgresServer) -> Iterator[str]:
    """A database without an outbox."""
    with postgres.database("schema_steps") as url:
        yield url


@pytest.fixture
def looking(plain_url: str) -> Iterator[Connection]:
    with psycopg.connect(plain_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def home() -> str:
    """The name of a schema that no test has had."""
    return f"home_{next(_numbers)}"


def schema_in(plain_url: str, home: str) -> PostgresSchema:
    return PostgresSchema(url_in_schema(plain_url, home))


def tables(looking: Connection, home: str) -> list[str]:
    return [name for (name,) in looking.execute(TABLES, [home]).fetchall()]


def test_each_migration_is_applied_once(plain_url: str, looking: Connection, home: str) -> None:
    schema = schema_in(plain_url, home)
    assert schema.applied() == set()
    assert schema.apply([]) == []
    assert tables(looking, home) == []
    assert schema.apply([FIRST]) == ["0001_first"]
    assert schema.apply([FIRST, SECOND]) == ["0002_second"]
    assert schema.apply([FIRST, SECOND]) == []
    assert schema.applied() == {"0001_first", "0002_second"}
    assert tables(looking, home) == ["first", "outbox_migrations", "second"]


def test_a_migration_waits_10_s_for_a_lock_at_most(
    plain_url: str, looking: Connection, home: str
) -> None:
    schema_in(plain_url, home).apply([SECOND])
    assert looking.execute(f"SELECT timeout FROM {home}.second").fetchall() == [("10s",)]


def test_one_that_fails_leaves_those_before_it(
    plain_url: str, looking: Connection, home: str
) -> None:
    schema = schema_in(plain_url, home)
    with pytest.raises(OutboxUnavailableError) as told:
        schema.apply([FIRST, BAD, SECOND])
    assert str(told.value).startswith("PostgreSQL at ")
    assert str(told.value).endswith(' can\'t be used: relation "nowhere" does not exist.')
    assert schema.applied() == {"0001_first"}
    assert tables(looking, home) == ["first", "outbox_migrations"]


def test_the_schema_of_the_outbox_is_made_and_no_other(
    plain_url: str, looking: Connection, home: str
) -> None:
    before = [name for (name,) in looking.execute(HOMES).fetchall()]
    schema_in(plain_url, home).apply([FIRST])
    assert [name for (name,) in looking.execute(HOMES).fetchall()] == sorted([*before, home])
    looking.execute(f"CREATE SCHEMA {home}_made")
    schema_in(plain_url, f"{home}_made").apply([FIRST])
    assert tables(looking, f"{home}_made") == ["first", "outbox_migrations"]


def test_an_outbox_stays_where_its_first_migration_made_it(
    plain_url: str, looking: Connection
) -> None:
    """Also when its role has a schema of its own by then, which would come first."""
    schema = PostgresSchema(plain_url)
    before = [name for (name,) in looking.execute(HOMES).fetchall()]
    assert schema.apply([FIRST]) == ["0001_first"]
    assert [name for (name,) in looking.execute(HOMES).fetchall()] == before
    looking.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER")
    assert schema.apply([FIRST, SECOND]) == ["0002_second"]
    assert tables(looking, "public") == ["first", "outbox_migrations", "second"]


async def test_one_process_applies_at_a_time(
    plain_url: str, looking: Connection, home: str
) -> None:
    schema = schema_in(plain_url, home)
    applying = threading.Thread(target=schema.apply, args=([FIRST],))
    with psycopg.connect(plain_url) as holder:
        holder.execute(HOLD, [LOCK])
        applying.start()
        await waits(looking, applying)
        assert tables(looking, home) == []
    applying.join(timeout=60)
    assert schema.applied() == {"0001_first"}


async def waits(looking: Connection, applying: threading.Thread) -> None:
    """Return when it waits for the lock, or has ended."""

    async def is_so() -> bool:
        return not applying.is_alive() or looking.execute(WAITING).fetchall() == [(1,)]

    await eventually(is_so)


async def test_who_waited_does_not_apply_what_was_applied_meanwhile(
    plain_url: str, looking: Connection, home: str
) -> None:
    """Also where transactions keep the view of their first statement."""
    schema = schema_in(plain_url, home)
    schema.apply([FIRST])
    applied: list[list[str]] = []
    with set_for_all(looking, "default_transaction_isolation", "repeatable read"):
        applying = threading.Thread(target=lambda: applied.append(schema.apply([SECOND])))
        with psycopg.connect(plain_url) as holder:
            holder.execute(HOLD, [LOCK])
            applying.start()
            await waits(looking, applying)
            holder.execute(f"INSERT INTO {home}.outbox_migrations (id) VALUES ('0002_second')")
        applying.join(timeout=60)
    assert applied == [[]]


@contextlib.contextmanager
def set_for_all(looking: Connection, name: str, value: str) -> Iterator[None]:
    """A setting for all later sessions of the database."""
    database = looking.info.dbname
    looking.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
    try:
        yield
    finally:
        looking.execute(f"ALTER DATABASE {database} RESET {name}")


@pytest.mark.parametrize("name", ["lock_timeout", "statement_timeout"])
async def test_a_timeout_of_the_database_ends_no_migration_and_no_wait_for_one(
    plain_url: str, looking: Connection, home: str, name: str
) -> None:
    """A role may have one: the service's waits at its start while the owner's migrates."""
    schema = schema_in(plain_url, home)
    with set_for_all(looking, name, "1s"):
        applying = threading.Thread(target=schema.apply, args=([SLOW],))
        with psycopg.connect(plain_url) as holder:
            holder.execute(HOLD, [LOCK])
            applying.start()
            await waits(looking, applying)
            looking.execute("SELECT pg_sleep(1.2)")
        applying.join(timeout=60)
    assert schema.applied() == {"0001_slow"}


@pytest.mark.parametrize("name", ["statement_timeout", "idle_in_transaction_session_timeout"])
def test_a_migration_has_no_timeout_of_the_database(
    plain_url: str, looking: Connection, home: str, name: str
) -> None:
    told = ("0001_told", f"CREATE TABLE told AS SELECT current_setting('{name}') AS timeout")
    with set_for_all(looking, name, "60s"):
        schema_in(plain_url, home).apply([told])
    assert looking.execute(f"SELECT timeout FROM {home}.told").fetchall() == [("0",)]


@pytest.mark.parametrize(("option", "seconds"), [("", "5"), ("connect_timeout=9", "9")])
def test_a_connection_is_waited_for_as_long_as_its_address_says(
    monkeypatch: pytest.MonkeyPatch, option: str, seconds: str
) -> None:
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def refusing(address: str, **options: Any) -> Connection:
        asked.append((conninfo_to_dict(address), options))
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(psycopg, "connect", refusing)
    with pytest.raises(
        OutboxUnavailableError, match=r"^PostgreSQL at db:5432, database app, can't"
    ):
        PostgresSchema(f"postgresql://ada@db/app?{option}").applied()
    address = {"user": "ada", "host": "db", "dbname": "app", "connect_timeout": seconds}
    # Behind pgbouncer a prepared statement may be another session's.
    assert asked == [(address, {"autocommit": True, "prepare_threshold": None})]


async def test_a_database_of_another_encoding_is_left(postgres: PostgresServer) -> None:
    make = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    with psycopg.connect(postgres.url(), autocommit=True) as looking:
        looking.execute(make)
        try:
            with pytest.raises(OutboxUnavailableError) as told:
                PostgresSchema(postgres.url("latin")).apply([FIRST])

            async def left() -> bool:
                return looking.execute(SESSIONS, ["latin"]).fetchall() == [(0,)]

            await eventually(left)
            assert str(told.value) == (
                "The outbox's database has the encoding LATIN1. Make one with "
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
            )
        finally:
            looking.execute("DROP DATABASE latin WITH (FORCE)")
