"""A PostgreSQL server that lacks the last commits, as after a failover to one that lagged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.posting import can_append
from tests.support.storage import PostgresStorage, append_all, eventually

COPY = "CREATE DATABASE behind TEMPLATE ahead"
FAIL_OVER = (
    "ALTER DATABASE ahead ALLOW_CONNECTIONS false",
    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = 'ahead'",
    "ALTER DATABASE ahead RENAME TO lost",
    "ALTER DATABASE behind RENAME TO ahead",
)


@pytest.fixture
def storage(postgres: PostgresServer) -> Iterator[PostgresStorage]:
    with postgres.database("ahead") as url:
        migrate(url)
        yield PostgresStorage(url)


@pytest.fixture
def fail_over(postgres: PostgresServer, storage: PostgresStorage) -> Iterator[Callable[[], None]]:
    """Put the database as it is now in the place of what it has become."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(COPY)

        def replace() -> None:
            for statement in FAIL_OVER:
                connection.execute(statement)

        yield replace
        for name in ("behind", "lost"):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_the_limits_count_what_a_server_without_the_last_commits_has(
    storage: PostgresStorage, fail_over: Callable[[], None]
) -> None:
    async with storage.open() as outbox:
        for _ in range(10):
            await append_all(outbox, 1)

        async def numbers_read() -> int:
            await outbox.quota._read()
            return outbox.quota._counts._after or 0

        await eventually(numbers_read, lambda last: last >= 10)
        fail_over()
        await eventually(lambda: can_append(outbox))

        async def is_counted() -> bool:
            return outbox.undelivered == (await outbox.inspector.stats()).pending > 0

        await eventually(is_counted)


async def test_a_change_of_settings_whose_revision_was_lost_before_is_noticed(
    storage: PostgresStorage, fail_over: Callable[[], None]
) -> None:
    async with storage.open() as one, storage.open() as two:
        await one.settings.save_scope("user", "u-1", {"lost": 1})
        seen = one.settings.scope_revision
        fail_over()

        async def is_saved() -> bool:
            with contextlib.suppress(OutboxUnavailableError):
                await two.settings.save_scope("user", "u-1", {"kept": 2})
                return True
            return False

        await eventually(is_saved)
        await eventually(lambda: one.settings.scope_revision > seen)
        assert await one.settings.load_scope("user", "u-1") == {"kept": 2}
