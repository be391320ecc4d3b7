"""Two transactions that append the same event at once."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.support.storage import eventually

WAITS = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = %s"
BY_KEY = "SELECT outbox.append('n', '{}', 'u-1', idempotency_key => 'k-1')"
BY_ID = "SELECT outbox.append('n', '{}', 'u-1', id => 'order-1')"


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
