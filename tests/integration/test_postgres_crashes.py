"""PostgreSQL crashes, is restored, or lacks the last commits: nothing accepted is lost unsaid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import msgspec
import psycopg
import pytest

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Filter
from inngest_outbox.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.posting import can_append, fails_soon
from tests.support.storage import (
    PATIENCE_SECONDS,
    PostgresStorage,
    append_all,
    ask,
    event,
    eventually,
    ids,
)


async def test_posts_fail_soon_while_the_database_is_away_and_pass_when_it_is_back(
    crashable: PostgresServer, crashable_url: str
) -> None:
    async with PostgresStorage(crashable_url).open() as outbox:
        [first] = await append_all(outbox, 1)
        await asyncio.to_thread(crashable.crash)
        try:
            await fails_soon(outbox)
            assert outbox.failure
            with pytest.raises(OutboxUnavailableError):
                await outbox.intake.find(first.id)
            await asyncio.gather(*(fails_soon(outbox) for _ in range(50)))
        finally:
            await asyncio.to_thread(crashable.start)
        await eventually(lambda: can_append(outbox))
        assert outbox.failure is None
        assert await outbox.intake.find(first.id)


async def test_a_waiting_claim_outlives_a_restart(
    crashable: PostgresServer, crashable_url: str
) -> None:
    async with PostgresStorage(crashable_url).open() as outbox:

        async def claim_until_given() -> list[str]:
            while True:
                try:
                    return ids(await outbox.queue.claim(ask()))
                except OutboxUnavailableError:
                    await asyncio.sleep(0.05)

        waiting = asyncio.create_task(claim_until_given())
        await asyncio.to_thread(crashable.crash)
        await asyncio.to_thread(crashable.start)
        await eventually(lambda: can_append(outbox))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting


COPY = "CREATE DATABASE behind TEMPLATE ahead"
FAIL_OVER = (
    "ALTER DATABASE ahead ALLOW_CONNECTIONS false",
    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = 'ahead'",
    "ALTER DATABASE ahead RENAME TO lost",
    "ALTER DATABASE behind RENAME TO ahead",
)


@pytest.fixture
def fail_over(postgres: PostgresServer) -> Iterator[tuple[PostgresStorage, Callable[[], None]]]:
    """A database, and a function that sets it back to what it is now, as a failover does."""
    with (
        postgres.database("ahead") as url,
        psycopg.connect(postgres.url(), autocommit=True) as connection,
    ):
        migrate(url)
        connection.execute(COPY)

        def replace() -> None:
            for statement in FAIL_OVER:
                connection.execute(statement)

        yield PostgresStorage(url), replace
        for name in ("behind", "lost"):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_limits_and_settings_are_those_of_a_server_without_the_last_commits(
    fail_over: tuple[PostgresStorage, Callable[[], None]],
) -> None:
    storage, replace = fail_over
    async with storage.open() as one, storage.open() as two:
        for _ in range(10):
            await append_all(one, 1)

        async def numbers_read() -> int:
            await one.quota._read()
            return one.quota._counts._after or 0

        await eventually(numbers_read, lambda last: last >= 10)
        await one.scopes.save_scope("user", "u-1", {"lost": 1})
        seen = one.scopes.scope_revision
        replace()
        await eventually(lambda: can_append(one))

        async def is_counted() -> bool:
            return one.undelivered == (await one.inspector.stats()).pending > 0

        await eventually(is_counted)

        async def is_saved() -> bool:
            with contextlib.suppress(OutboxUnavailableError):
                await two.scopes.save_scope("user", "u-1", {"kept": 2})
                return True
            return False

        await eventually(is_saved)
        await eventually(lambda: one.scopes.scope_revision > seen)
        assert await one.scopes.load_scope("user", "u-1") == {"kept": 2}


AT_MS = 1_795_559_419_447


async def ulids(url: str, appended: int) -> dict[int, str]:
    """The ULIDs by number, after so many more events of one moment."""
    async with PostgresStorage(url).open() as outbox:
        for _ in range(appended):
            one = msgspec.structs.replace(event(), accepted_at_ms=AT_MS, meta=Meta())
            receipt = await outbox.intake.append(one)
            row = await outbox.intake.find(one.id)
            assert row.inngest_id == receipt.inngest_id
        rows = await outbox.inspector.rows(Filter())
        return {row.seq: row.inngest_id or "" for row in rows}


async def test_a_copy_of_an_outbox_gives_the_next_numbers_other_ulids(
    postgres: PostgresServer,
) -> None:
    """A second start on the same server goes on with its own."""
    with postgres.database("original") as original:
        migrate(original)
        before = await ulids(original, 3)
        with postgres.database("restored", template="original") as restored:
            there, here = await ulids(original, 2), await ulids(restored, 2)
            assert len({ulid[:-2] for ulid in there.values()}) == 1
            assert there.items() & here.items() == before.items()
            assert there.keys() == here.keys()
            assert await ulids(restored, 0) == here


SEEN = """
CREATE TABLE public.seen_levels (transaction xid8 PRIMARY KEY, level text);
CREATE FUNCTION public.see_level() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.seen_levels
    VALUES (pg_current_xact_id(), current_setting('synchronous_commit')) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER see_level AFTER INSERT ON outbox.{table} DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.see_level()
"""
WHOSE = {
    "database": "ALTER DATABASE synced SET synchronous_commit = '{level}'",
    "role": "ALTER ROLE outbox IN DATABASE synced SET synchronous_commit = '{level}'",
}
LEVELS = [
    ("database", "off", "on"),
    *(("database", one, one) for one in ("local", "remote_write", "on", "remote_apply")),
    ("role", "off", "on"),
]


@pytest.fixture
def synced(postgres: PostgresServer) -> Iterator[tuple[str, psycopg.Connection]]:
    """An outbox that notes the levels of its commits, and a session beside it."""
    with postgres.database("synced") as url, psycopg.connect(url, autocommit=True) as connection:
        migrate(url)
        yield url, connection


def levels(connection: psycopg.Connection) -> set[str]:
    """The levels that were noted; they are forgotten."""
    found = connection.execute("DELETE FROM public.seen_levels RETURNING level").fetchall()
    return {level for (level,) in found}


async def test_an_append_is_synced_and_keeps_any_other_level(
    synced: tuple[str, psycopg.Connection],
) -> None:
    url, connection = synced
    connection.execute(SEEN.format(table="events").encode())
    for whose, level, committed in LEVELS:
        connection.execute(WHOSE[whose].format(level=level).encode())
        async with PostgresStorage(url).open() as outbox:
            await outbox.intake.append(event())
            await outbox.intake.append(event(), key=IdempotencyKey(f"{whose} {level}", b"1"))
            await outbox.intake.append_all((event(), event()), (None, None))
        assert levels(connection) == {committed}


async def test_an_answer_about_a_stored_event_waits_for_its_sync(
    synced: tuple[str, psycopg.Connection],
) -> None:
    url, connection = synced
    one, key = event(), IdempotencyKey("k", b"1")
    async with PostgresStorage(url).open() as outbox:
        await outbox.intake.append(one, key=key)
    connection.execute(SEEN.format(table="changes").encode())
    for level, committed in (("off", "on"), ("local", "local")):
        connection.execute(WHOSE["database"].format(level=level).encode())
        async with PostgresStorage(url).open() as outbox:
            levels(connection)
            assert (await outbox.intake.append(one, key=key)).replayed
            assert committed in levels(connection)
