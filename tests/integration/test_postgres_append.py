"""Events that an application appends in SQL, inside its own transaction."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from service.outbox.model import Settlement
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.storage import Outbox, PostgresStorage, claim, claims_nothing, eventually, ids

APPEND = "SELECT outbox.append(%s, %s, %s)"
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def outbox(postgres_url: str) -> AsyncIterator[Outbox]:
    async with PostgresStorage(postgres_url).open() as opened:
        yield opened


def append(connection: psycopg.Connection, name: str = "app/saved", **data: object) -> str:
    [(event_id,)] = connection.execute(APPEND, (name, Jsonb(data), "u-1")).fetchall()
    return event_id


async def test_a_committed_event_wakes_the_relay_and_has_the_wire_form(
    outbox: Outbox, postgres_url: str
) -> None:
    async def hears() -> bool:
        return outbox.notify_ok

    await eventually(hears)
    waiting = asyncio.create_task(claim(outbox))
    assert await claims_nothing(outbox)
    with psycopg.connect(postgres_url) as connection:
        event_id = append(connection, document="ü")
    batch = await waiting
    wire = json.loads(batch.payloads)
    [entry] = batch.entries
    assert wire == {
        "id": event_id,
        "name": "app/saved",
        "ts": entry.accepted_at_ms,
        "v": "1",
        "user": {"id": "u-1", "email": None, "name": None},
        "data": {"document": "ü"},
    }
    assert entry.event_id == event_id
    assert uuid.UUID(event_id).version == 7
    row = await outbox.intake.find(event_id)
    assert row is not None
    assert (row.owner, row.user_id) == ("database u-1", "u-1")
    assert await outbox.queue.settle(Settlement(batch.claim, delivered=[entry.seq])) == 0
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivering, stats.delivered) == (0, 0, 1)


async def test_a_transaction_that_is_rolled_back_leaves_no_event(
    outbox: Outbox, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        append(connection)
        connection.rollback()
    assert await claims_nothing(outbox)
    assert (await outbox.inspector.stats()).pending == 0


async def test_an_event_of_a_long_transaction_is_claimed_after_others_went_by(
    outbox: Outbox, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as slow, psycopg.connect(postgres_url) as quick:
        late = append(slow)
        for number in range(3):
            append(quick, number=number)
            quick.commit()
            batch = await claim(outbox)
            await outbox.queue.settle(Settlement(batch.claim, delivered=[batch.entries[0].seq]))
        assert await claims_nothing(outbox)
        slow.commit()
    assert [entry.event_id for entry in (await claim(outbox)).entries] == [late]


async def test_an_application_that_is_killed_right_after_its_commit_leaves_one_event(
    outbox: Outbox, postgres_url: str
) -> None:
    code = (
        "import os, signal, sys, psycopg\n"
        "connection = psycopg.connect(sys.argv[1])\n"
        "connection.execute(\"SELECT outbox.append('app/saved', '{}', 'u-1')\")\n"
        "connection.commit()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, postgres_url)
    assert await process.wait() == -signal.SIGKILL
    assert len((await claim(outbox)).entries) == 1
    assert await claims_nothing(outbox)


async def test_an_event_waits_until_it_may_be_sent(outbox: Outbox, postgres_url: str) -> None:
    now_ms = int(time.time() * 1000)
    call = "SELECT outbox.append('n', '{}', 'u-1', send_at => %s)"
    with psycopg.connect(postgres_url) as connection:
        times = (now_ms + DAY_MS, now_ms + 700, now_ms - 1000)
        late, soon, past = [connection.execute(call, [at]).fetchall()[0][0] for at in times]
        connection.commit()
        claimed: dict[str, float] = {}
        while len(claimed) < 2:
            claimed |= dict.fromkeys(ids(await claim(outbox)), time.time() * 1000)
        assert set(claimed) == {past, soon}
        assert claimed[soon] >= max(times[1], claimed[past])
        assert await claims_nothing(outbox)
        row = await outbox.intake.find(late)
        assert row is not None
        assert row.due_in_seconds is not None
        assert row.due_in_seconds > DAY_MS / 1000 - 60
        assert not connection.execute("SELECT FROM outbox_held").fetchall()


async def test_the_same_key_gives_the_same_event_and_other_data_an_error(
    outbox: Outbox, postgres_url: str
) -> None:
    call = "SELECT outbox.append('n', %s, 'u-1', idempotency_key => 'k-1')"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        first = connection.execute(call, (Jsonb({"a": 1}),)).fetchall()
        assert connection.execute(call, (Jsonb({"a": 1}),)).fetchall() == first
        with pytest.raises(psycopg.errors.UniqueViolation, match="idempotency_key_reused"):
            connection.execute(call, (Jsonb({"a": 2}),))
    assert (await outbox.inspector.stats()).pending == 1


async def test_the_limits_are_those_of_the_service(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open(max_pending=3, max_pending_per_user=2):
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            append(connection)
            append(connection)
            with pytest.raises(psycopg.Error, match="too_many_pending"):
                append(connection)
            connection.execute("SELECT outbox.append('n', '{}', 'u-2')")
            with pytest.raises(psycopg.Error, match="outbox_full"):
                connection.execute("SELECT outbox.append('n', '{}', 'u-3')")


async def test_the_limits_of_bytes_are_those_of_the_service(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url)
    call = "SELECT outbox.append('n', jsonb_build_object('pad', repeat('x', 900)), %s)"
    async with storage.open(max_bytes=4000, max_bytes_per_user=2500) as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(call, ("u-1",))
            connection.execute(call, ("u-1",))
            with pytest.raises(psycopg.Error, match="too_many_pending: the stored events"):
                connection.execute(call, ("u-1",))
            connection.execute(call, ("u-2",))
            with pytest.raises(psycopg.Error, match="outbox_full: the stored events"):
                connection.execute(call, ("u-3",))
        shares = {one.owner: one.rows for one in await outbox.inspector.owners(10)}
        assert shares == {"database u-1": 2, "database u-2": 1}


def test_a_role_needs_the_right_to_append_and_nothing_else(
    postgres: PostgresServer,
) -> None:
    with postgres.database("appending") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("DROP ROLE IF EXISTS shop; CREATE ROLE shop LOGIN")
        with (
            psycopg.connect(url.replace("outbox@", "shop@"), autocommit=True) as shop,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            append(shop)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("GRANT USAGE ON SCHEMA outbox TO shop")
            owner.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox TO shop")
        with psycopg.connect(url.replace("outbox@", "shop@"), autocommit=True) as shop:
            append(shop)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                shop.execute("SELECT * FROM outbox")
    with psycopg.connect(postgres.url(), autocommit=True) as owner:
        owner.execute("DROP ROLE shop")
