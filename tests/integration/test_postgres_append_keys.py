"""Which event an append gives whose key or id another transaction or the service has used."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.web.intake.event_batch import BatchRequest, EventBatches
from tests.support.storage import PostgresStorage, eventually

WAITS = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = %s"
BY_KEY = "SELECT outbox.append('n', '{}', 'u-1', idempotency_key => 'k-1')"
BY_ID = "SELECT outbox.append('n', '{}', 'u-1', id => 'order-1')"
POSTED = b'{"name":"n","id":"order-1"}'
DAY_MS = 24 * 3600 * 1000
AGE = "UPDATE outbox SET accepted_at_ms = accepted_at_ms - %s"


@pytest.mark.parametrize("call", [BY_KEY, BY_ID])
@pytest.mark.parametrize("commits", [True, False])
async def test_the_second_waits_for_the_first_and_gets_its_event(
    postgres_url: str, call: str, *, commits: bool
) -> None:
    with psycopg.connect(postgres_url) as first, psycopg.connect(postgres_url) as second:
        [(stored,)] = first.execute(call).fetchall()
        late = asyncio.create_task(asyncio.to_thread(lambda: second.execute(call).fetchall()))
        with psycopg.connect(postgres_url, autocommit=True) as looking:

            async def waits() -> bool:
                cursor = looking.execute(WAITS, [second.info.backend_pid])
                return bool(cursor.fetchall()[0][0])

            await eventually(waits)
            first.commit() if commits else first.rollback()
            [(event_id,)] = await late
            second.commit()
            assert (event_id == stored) is commits
            assert looking.execute("SELECT event_id FROM outbox").fetchall() == [(event_id,)]


async def test_an_id_means_the_same_event_here_and_at_the_door_for_a_day(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        request = BatchRequest(user=User("database", "u-1"), body=POSTED)
        [receipt], _ = await EventBatches(outbox.intake, NullRecorder()).accept(request)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert connection.execute(BY_ID).fetchall() == [(receipt.event_id,)]
        connection.execute(AGE, [DAY_MS + 1])
        [(later,)] = connection.execute(BY_ID).fetchall()
        assert later != receipt.event_id
        assert connection.execute(BY_ID).fetchall() == [(later,)]
