"""PostgreSQL crashes, is restored, or lacks the last commits: nothing accepted is lost unsaid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import msgspec
import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.event import Meta
from service.outbox.keys import IdempotencyKey
from service.outbox.model import Filter
from service.outbox.schema import migrate
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


AT_MS = 1_795_559_419_447


async def ulids(url: str, appended: int) -> dict[int, str]:
    """The ULIDs by number, after so many more events of one moment."""
    async with PostgresStorage(url).open() as outbox:
        for _ in range(appended):
            one = msgspec.structs.replace(event(), accepted_at_ms=AT_MS, meta=Meta())
            receipt = await outbox.intake.append(one)
            row = await outbox.intake.find(one.id)
            assert row is not None
            assert row.inngest_id == receipt.inngest_id
        rows = await outbox.inspector.rows(Filter())
        return {row.seq: row.inngest_id or "" for row in rows}


async def test_a_copy_of_an_outbox_gives_the_next_numbers_other_ulids(
    postgres: PostgresServer,
) -> None:
    with postgres.database("original") as original:
        migrate(original)
        before = await ulids(original, 3)
        with postgres.database("restored", template="original") as restored:
            there, here = await ulids(original, 2), await ulids(restored, 2)
            assert there.items() & here.items() == before.items()
            assert there.keys() == here.keys()
            assert await ulids(restored, 0) == here


async def test_a_second_start_on_the_same_server_goes_on_with_its_ulids(
    postgres_url: str,
) -> None:
    one, two = await ulids(postgres_url, 1), await ulids(postgres_url, 1)
    [first, second] = sorted(two.values())
    assert first in one.values()
    assert first[:-2] == second[:-2]


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
KEPT = [
    ("database", "local", "local"),
    *(
        pytest.param("database", one, one, marks=pytest.mark.slow)
        for one in ("remote_write", "on", "remote_apply")
    ),
]
LEVELS = [("database", "off", "on"), ("role", "off", "on"), *KEPT]


def prepare(url: str, table: str, whose: str, level: str) -> None:
    """An outbox whose sessions begin with the level, and that notes the levels of its commits."""
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SEEN.format(table=table).encode())
        connection.execute(WHOSE[whose].format(level=level).encode())


def levels(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {level for (level,) in connection.execute("SELECT level FROM public.seen_levels")}


@pytest.mark.parametrize(("whose", "level", "committed"), LEVELS)
async def test_an_append_is_synced_and_keeps_any_other_level(
    postgres: PostgresServer, whose: str, level: str, committed: str
) -> None:
    with postgres.database("synced") as url:
        prepare(url, "events", whose, level)
        async with PostgresStorage(url).open() as outbox:
            await outbox.intake.append(event())
            await outbox.intake.append(event(), key=IdempotencyKey("k", b"1"))
            await outbox.intake.append_all((event(), event()), (None, None))
        assert levels(url) == {committed}


@pytest.mark.parametrize(("level", "committed"), [("off", "on"), ("local", "local")])
async def test_an_answer_about_a_stored_event_waits_for_its_sync(
    postgres: PostgresServer, level: str, committed: str
) -> None:
    with postgres.database("synced") as url:
        async with PostgresStorage(url).open() as outbox:
            one, key = event(), IdempotencyKey("k", b"1")
            await outbox.intake.append(one, key=key)
        prepare(url, "changes", "database", level)
        async with PostgresStorage(url).open() as outbox:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("TRUNCATE public.seen_levels")
                assert (await outbox.intake.append(one, key=key)).replayed
                seen = connection.execute("SELECT level FROM public.seen_levels").fetchall()
    assert (committed,) in seen
