"""A PostgreSQL server that hangs: posts fail soon, nothing piles up there, and it is told why."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Filter
from inngest_outbox.outbox.postgres.database.executor import MAX_CONNECTIONS
from inngest_outbox.outbox.postgres.database.pool import PoolTimings
from tests.support.postgres_rows import empty_outbox, new_outbox
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.posting import Posting, can_append, fails_soon
from tests.support.storage import Outbox, PostgresStorage, append_all, event, eventually

MOST_CONNECTIONS = MAX_CONNECTIONS + 1  # and one that probes


@pytest.fixture(scope="module")
def hangable() -> Iterator[PostgresServer]:
    """A server for tests that change its settings."""
    with needed_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def outbox_url(hangable: PostgresServer) -> Iterator[str]:
    with new_outbox(hangable, "outbox") as made:
        yield made


@pytest.fixture
def url(outbox_url: str) -> str:
    empty_outbox(outbox_url)
    return outbox_url


@pytest.fixture
async def outbox(url: str) -> AsyncIterator[Outbox]:
    """Its start has patience with a busy machine, its callers only that of the service."""
    async with PostgresStorage(url).open() as opened:
        await append_all(opened, 1)
        opened.pool.timings = PoolTimings()
        yield opened


@contextlib.contextmanager
def absent_standby(server: PostgresServer) -> Iterator[None]:
    """Every commit waits for a standby that is not there."""
    server.set("synchronous_standby_names", "absent")
    try:
        _wait_until_commits_wait(server)
        yield
    finally:
        server.set("synchronous_standby_names", "")


def _wait_until_commits_wait(server: PostgresServer) -> None:
    """The server heeds a new setting only after a moment."""
    with (
        psycopg.connect(server.url(), autocommit=True) as watching,
        psycopg.connect(server.url(), autocommit=True) as committing,
    ):
        seen = threading.Event()

        def commit() -> None:
            while not seen.wait(0.005):
                committing.execute("SELECT pg_logical_emit_message(true, 'test', '')")

        thread = threading.Thread(target=commit)
        thread.start()
        pid = committing.info.backend_pid
        waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        while not watching.execute(waits, (pid,)).fetchall():
            time.sleep(0.005)
        seen.set()
        watching.execute("SELECT pg_cancel_backend(%s)", (pid,))
        thread.join()


@contextlib.contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table}")
        yield


def backends(url: str) -> list[tuple[int, str | None]]:
    """The server's processes that serve the outbox, and what each waits for."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(
            "SELECT pid, wait_event FROM pg_stat_activity WHERE application_name = 'outbox'"
        ).fetchall()


async def fails_with(outbox: Outbox, failure: str) -> None:
    """Each attempt tells its own fault: while one is under way, the last one's is shown."""
    await eventually(lambda: outbox.failure, lambda seen: seen == failure)


async def is_back(outbox: Outbox) -> None:
    await eventually(lambda: can_append(outbox))


@pytest.mark.parametrize("table", ["outbox.events", "outbox.ready", "outbox.changes"])
async def test_a_held_lock_fails_posts_soon_and_leaves_nothing_to_be_stored_later(
    outbox: Outbox, url: str, table: str
) -> None:
    posting = Posting(outbox)
    with capture_logs() as logs, locked(url, table):
        async with posting.under_way():
            await eventually(lambda: posting.failed >= 100)
        assert len(backends(url)) <= MOST_CONNECTIONS
        await fails_with(outbox, "Another session holds a lock in the outbox's database.")
    assert [one["event"] for one in logs].count("database_lost") == 1
    await is_back(outbox)
    assert outbox.failure is None
    stored = {row.id for row in await outbox.inspector.rows(Filter(limit=10_000))}
    assert set(posting.accepted) <= stored
    assert not posting.refused & stored


async def test_a_statement_whose_caller_has_left_fails_without_a_word(
    outbox: Outbox, url: str
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    with locked(url, "outbox.events"):
        looking = asyncio.create_task(outbox.inspector.rows(Filter()))
        await eventually(lambda: any(wait == "relation" for _, wait in backends(url)))
        looking.cancel()
        await asyncio.wait([looking])
        await eventually(lambda: not any(wait == "relation" for _, wait in backends(url)))
    await is_back(outbox)
    gc.collect()
    assert told == []


async def test_a_standby_that_is_waited_for_fails_posts_soon_and_piles_up_nothing(
    hangable: PostgresServer, outbox: Outbox, url: str
) -> None:
    with absent_standby(hangable):
        await fails_soon(outbox)
        for _ in range(5):
            await asyncio.gather(*(fails_soon(outbox) for _ in range(50)))
        assert len(backends(url)) <= MOST_CONNECTIONS
        await fails_with(outbox, "The outbox's database does not answer in time.")
    await is_back(outbox)
    assert len(backends(url)) <= MOST_CONNECTIONS


@pytest.mark.parametrize("act", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_commit_whose_wait_for_the_standby_is_cut_off_is_not_taken_for_stored(
    hangable: PostgresServer, outbox: Outbox, url: str, act: str
) -> None:
    """Both leave the row on the primary alone; the server only warns of it."""
    with absent_standby(hangable):
        posted = asyncio.create_task(outbox.intake.append(event()))
        for waiting in await eventually(
            lambda: [pid for pid, wait in backends(url) if wait == "SyncRep"]
        ):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"SELECT {act}(%s)", (waiting,))
        with pytest.raises(OutboxUnavailableError):
            await posted
    await is_back(outbox)


async def test_a_key_whose_event_no_standby_has_is_not_answered(
    hangable: PostgresServer, outbox: Outbox, url: str
) -> None:
    key = IdempotencyKey("k-1", b"1" * 32)
    with absent_standby(hangable):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = local")
            connection.execute(
                "INSERT INTO outbox.events (event_id, name, owner, user_id, accepted_at_ms, "
                "payload, idempotency_key, idempotency_digest) "
                "VALUES ('local', 'n', 'u-1', 'u-1', 0, '{}', %s, %s)",
                (key.key, key.digest),
            )
        with pytest.raises(OutboxUnavailableError):
            await outbox.intake.append(event(), key=key)
    await is_back(outbox)
    receipt = await outbox.intake.append(event(), key=key)
    assert (receipt.event_id, receipt.replayed) == ("local", True)
