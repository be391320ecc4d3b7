"""What a store finds and makes in a PostgreSQL database, and what works once it is open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder
from service.outbox.fair_share import FairShare
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Filter, Named
from service.outbox.postgres import store
from service.outbox.postgres.timings import PoolTimings
from service.outbox.schema import migrate
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.storage import ask, event

# The bytes are more than those of the tests' events.
GIVEN: dict[str, Any] = {
    "max_pending": 1,
    "max_pending_per_user": 2,
    "max_bytes": 30_000,
    "max_bytes_per_user": 40_000,
    "recorder": NullRecorder(),
}
LIMITS = """
SELECT max_pending, max_pending_per_user, max_bytes, max_bytes_per_user, heavy_rows FROM outbox_meta
"""


@pytest.fixture(scope="module")
def empty_url(postgres: PostgresServer) -> Iterator[str]:
    """An outbox that these tests fill."""
    with new_outbox(postgres, "store") as url:
        yield url


def limits(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(LIMITS).fetchall()


async def test_every_part_of_an_open_store_works(empty_url: str) -> None:
    timings = PoolTimings(3.0, 6.0, 9.0)
    given = {**GIVEN, "fair_share": FairShare(heavy_rows=7), "timings": timings}
    async with store.open_postgres_outbox(empty_url, **given) as outbox:
        assert limits(empty_url) == [(1, 2, 30_000, 40_000, 7)]
        assert outbox.pool.timings is timings
        receipt = await outbox.intake.append(event("a"))
        [(prefix,)] = await outbox.pool.ask("SELECT inngest_id_prefix FROM outbox_meta")
        ulid = InngestIds(prefix).ulid(receipt.seq, receipt.accepted_at_ms)
        assert receipt.inngest_id == ulid
        assert outbox.undelivered == 1
        [row] = await outbox.inspector.rows(Filter())
        assert row.inngest_id == ulid
        assert await outbox.positions.seq_at(0) == receipt.seq
        [entry] = (await outbox.queue.claim(ask(1))).entries
        assert entry.event_id == receipt.event_id
        await outbox.settings.save_scope("user", "ada", {"a": 1})
        await outbox.trail.record("payload", actor="ada", event_id=row.id, detail="shown")
        assert [one.action for one in await outbox.inspector.audit(9)] == ["payload"]
        assert await outbox.samples.between(0, 1) == []
        assert (await outbox.delivery.load()).state == "healthy"
        assert await outbox.repairs.discard(Named((row.id,)), actor="ada") == []
    async with store.open_postgres_outbox(empty_url, **GIVEN) as outbox:
        assert limits(empty_url) == [(1, 2, 30_000, 40_000, 1000)]
        assert await outbox.settings.load_scope("user", "ada") == {"a": 1}


async def test_a_command_works_on_what_a_service_migrated(empty_url: str) -> None:
    before = limits(empty_url)
    async with store.open_postgres_operations(empty_url) as outbox:
        assert (await outbox.inspector.stats()).pending >= 0
        assert limits(empty_url) == before
    with pytest.raises(OutboxUnavailableError, match='used: column "none" does not exist'):
        await ask_for_nothing(empty_url)


async def ask_for_nothing(url: str) -> None:
    async with store.open_postgres_operations(url) as outbox:
        await outbox.pool.ask('SELECT "none"')


async def test_a_service_migrates_and_a_command_does_not(postgres: PostgresServer) -> None:
    with postgres.database("unmigrated") as url:
        with pytest.raises(OutboxUnavailableError, match="schema is missing or older"):
            async with store.open_postgres_operations(url):
                pass
        async with store.open_postgres_outbox(url, **GIVEN):
            assert limits(url) == [(1, 2, 30_000, 40_000, 1000)]
        migrate(url)
