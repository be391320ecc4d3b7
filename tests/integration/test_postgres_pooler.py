"""The PostgreSQL store behind pgbouncer in transaction mode, which has few connections for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.errors import OutboxMoveError
from service.outbox.model import Dead, Retry, Settlement
from service.outbox.schema import migrate
from tests.support.moving import move
from tests.support.named_rows import named
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres_server import PostgresServer
from tests.support.storage import (
    PostgresStorage,
    append_all,
    claim,
    deliver,
    event,
    eventually,
    ids,
)

LEFT_BEHIND = """
SELECT current_setting('lock_timeout'), current_setting('search_path'),
       (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '/* APPEND */%'"


@pytest.fixture
def pooled(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("pooled"), pgbouncer(postgres, "pooled", connections=2) as url:
        yield url


async def test_an_outbox_does_all_behind_a_pooler_and_leaves_nothing_in_a_session(
    pooled: str,
) -> None:
    migrate(pooled)
    async with PostgresStorage(pooled).open() as outbox:
        await asyncio.gather(*(outbox.intake.append(event()) for _ in range(200)))
        for _ in range(10):
            await append_all(outbox, 1)
        batch = await claim(outbox)
        one, two, three, *rest = (entry.seq for entry in batch.entries)
        await outbox.queue.settle(
            Settlement(
                batch.claim,
                delivered=[one, *rest],
                retry=[Retry(two, 0, 1, isolated=False)],
                dead=[Dead(three, 1, "rejected", "")],
            )
        )
        await outbox.repairs.replay(await named(outbox.inspector), actor="ada")
        await outbox.settings.save_scope("user", "u-1", {"a": 1})
        assert await outbox.settings.load_scope("user", "u-1") == {"a": 1}
        stats = await outbox.inspector.stats()
        assert (stats.pending, stats.delivered) == (210 - 98, 98)
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as client:
            for _ in range(10):
                found = client.execute(LEFT_BEHIND).fetchall()
                assert found == [("0", '"$user", public', 0, 0)]


async def test_a_move_sees_a_service_behind_a_pooler(pooled: str, tmp_path: Path) -> None:
    migrate(pooled)
    async with PostgresStorage(pooled).open():
        with pytest.raises(OutboxMoveError, match="source is being served"):
            await move(pooled, f"sqlite:///{tmp_path}/outbox.db")


@pytest.fixture
def preparing(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("preparing") as direct:
        with psycopg.connect(direct, autocommit=True) as connection:
            connection.execute("ALTER DATABASE preparing SET outbox.prepare = 'on'")
        with pgbouncer(postgres, "preparing", connections=2) as url:
            yield url


async def test_statements_are_prepared_behind_a_pooler_by_choice(preparing: str) -> None:
    migrate(preparing)
    async with PostgresStorage(preparing).open() as outbox:

        async def prepared() -> int:
            """How many statements the pooler's connections have after one more round."""
            posts = await asyncio.gather(*(append_all(outbox, 1) for _ in range(4)))
            batch = await claim(outbox)
            assert set(ids(batch)) == {post.id for [post] in posts}
            assert await deliver(outbox, batch) == 0
            return await asyncio.to_thread(prepared_by, preparing)

        await eventually(prepared)


def prepared_by(url: str) -> int:
    """The appends that are prepared in both connections of a pooler."""
    with contextlib.ExitStack() as stack:
        found = 0
        for _ in range(2):
            # Each open transaction keeps one of the two.
            client = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
            [(count,)] = client.execute(PREPARED).fetchall()
            found += count
        return found


async def test_an_event_of_another_process_is_found_without_notifications(pooled: str) -> None:
    migrate(pooled)
    storage = PostgresStorage(pooled)
    async with storage.open() as one, storage.open() as two:
        waiting = asyncio.create_task(claim(one))
        [sent] = await append_all(two, 1)
        assert ids(await waiting) == [sent.id]

        async def counted() -> bool:
            return (await one.inspector.stats()).delivering == 1

        await eventually(counted)
