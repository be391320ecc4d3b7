"""Which event an append of a known key or id gives: its own owner's, for its own key."""

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


def append(connection: psycopg.Connection, **fields: str) -> str:
    named = ", ".join(f"{name} => %({name})s" for name in fields)
    [(event_id,)] = connection.execute(f"SELECT outbox.append('n', '{{}}', {named})", fields)
    return str(event_id)


@pytest.mark.parametrize("name", ["idempotency_key", "id"])
def test_a_repeat_gives_the_event_of_its_owner_and_key(postgres_url: str, name: str) -> None:
    calls = [{"user_id": user, name: key} for user in ("u-1", "u-2") for key in ("a", "b")]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        first = [append(connection, **one) for one in calls]
        assert len(set(first)) == len(calls)
        assert [append(connection, **one) for one in calls] == first


def test_an_id_that_is_free_after_a_day_frees_no_other(postgres_url: str) -> None:
    calls = [{"user_id": user, "id": key} for user in ("u-1", "u-2") for key in ("a", "b")]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        first = [append(connection, **one) for one in calls]
        connection.execute("UPDATE outbox SET accepted_at_ms = accepted_at_ms - 86400001")
        assert append(connection, **calls[0]) != first[0]
        freed = "SELECT event_id FROM outbox WHERE idempotency_key IS NULL"
        assert connection.execute(freed).fetchall() == [(first[0],)]
