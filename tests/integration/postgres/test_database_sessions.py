"""What a session with a PostgreSQL outbox sets up, heeds and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.outbox.postgres.connection import (
    SET_UP,
    OutboxConnection,
    connection_string,
    set_up,
    shut,
)
from tests.support.postgres_server import PostgresServer
from tests.support.storage import eventually

SETTINGS = """
SELECT name, setting FROM pg_settings WHERE name IN (
    'jit', 'plan_cache_mode', 'enable_seqscan', 'enable_bitmapscan', 'lock_timeout',
    'statement_timeout', 'idle_in_transaction_session_timeout', 'default_transaction_isolation',
    'search_path')
"""
OURS = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "lock_timeout": "1500",
    "statement_timeout": "12000",
    "idle_in_transaction_session_timeout": "15000",
    "default_transaction_isolation": "read committed",
    "search_path": "public, pg_temp",
}


@pytest.fixture
async def session(room_url: str) -> AsyncIterator[OutboxConnection]:
    async with await OutboxConnection.connect(room_url, autocommit=True) as connection:
        yield connection


async def found(connection: OutboxConnection, statement: str) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(statement, prepare=False)
    return await cursor.fetchall()


def open_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_direct_session_has_its_settings_and_prepares_its_statements(
    session: OutboxConnection,
) -> None:
    await set_up(session)
    assert await found(session, "SELECT count(*) FROM pg_prepared_statements") == [(0,)]
    assert session.prepare_threshold == 3
    assert dict(await found(session, SETTINGS)) == OURS


async def test_nothing_is_kept_in_a_session_of_a_pooler(
    session: OutboxConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await found(session, SETTINGS)
    pooler = property(lambda _: 1)
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", pooler)
    await set_up(session)
    assert session.prepare_threshold is None
    assert await found(session, SETTINGS) == before
    await session.execute("SET outbox.prepare = 'on'")
    await set_up(session)
    assert session.prepare_threshold == 3
    assert await found(session, SETTINGS) == before


def test_a_search_path_of_the_address_is_kept_where_there_is_no_outbox(
    postgres: PostgresServer,
) -> None:
    with (
        postgres.database("without_tables") as url,
        psycopg.connect(url, options="-c search_path=mine") as connection,
    ):
        connection.execute(SET_UP, {"backend": connection.info.backend_pid})
        assert connection.execute("SHOW search_path").fetchall() == [("mine",)]


async def test_a_session_remembers_a_warning_and_no_notice(session: OutboxConnection) -> None:
    await set_up(session)
    assert session.warned is False
    await session.execute("DO $$ BEGIN RAISE NOTICE 'x'; END $$")
    assert session.warned is False
    await session.execute("DO $$ BEGIN RAISE WARNING 'x'; END $$")
    assert session.warned is True


async def test_a_session_that_is_shut_waits_for_no_answer(session: OutboxConnection) -> None:
    waiting = asyncio.ensure_future(session.execute("SELECT pg_sleep(30)"))

    async def is_asked() -> bool:
        return session.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE

    await eventually(is_asked)
    before = open_handles()
    shut(session)
    assert open_handles() == before
    async with asyncio.timeout(10):
        with pytest.raises(psycopg.OperationalError):
            await waiting
    await session.close()
    shut(session)


def test_an_address_has_timeouts_unless_it_sets_them() -> None:
    text = connection_string("postgresql://ada@there/outbox?keepalives_idle=9")
    assert text.split() == [
        "connect_timeout=2",
        "keepalives_idle=9",
        "keepalives_interval=2",
        "keepalives_count=3",
        "tcp_user_timeout=6000",
        "application_name=outbox",
        "user=ada",
        "dbname=outbox",
        "host=there",
    ]
