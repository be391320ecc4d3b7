"""No row is passed over by the marks, however late its transaction commits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import psycopg
import pytest

from service.outbox.model import Filter, Retry, Settlement
from service.outbox.postgres.marks import LOOK
from service.outbox.postgres.recount import RECOUNT
from tests.support.storage import (
    PATIENCE_SECONDS,
    Outbox,
    PostgresStorage,
    append_all,
    ask,
    claim,
    eventually,
)

APPEND_LATE = """
WITH put AS (
    INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, payload)
    VALUES (%(id)s, 'n', 'late', 'late', 0, '{}') RETURNING seq
), ready AS (
    INSERT INTO outbox_ready (seq, payload_bytes) SELECT seq, 2 FROM put
)
INSERT INTO outbox_changes (owners, pending, stored, stored_bytes)
VALUES ('{late}', '{1}', '{1}', '{2}')
"""
FILTER = Filter(limit=100_000)
MARK = "SELECT ready_from FROM outbox_mark"
PASSED = "SELECT ready_from > (SELECT max(seq) FROM outbox) FROM outbox_mark"


@pytest.fixture
async def outbox(postgres_url: str) -> AsyncIterator[Outbox]:
    async with PostgresStorage(postgres_url).open() as opened:
        yield opened


def look(connection: psycopg.Connection, times: int = 1) -> None:
    for _ in range(times):
        connection.execute(LOOK, {"interval_seconds": 0.0})


async def passes_all(looking: psycopg.Connection) -> None:
    """Look until the mark has passed every event."""

    async def passed() -> bool:
        look(looking)
        return bool(looking.execute(PASSED).fetchall()[0][0])

    await eventually(passed)


async def drain(outbox: Outbox, wanted: set[str]) -> None:
    """Claim and settle until these have come."""
    while wanted:
        batch = await claim(outbox, ask(50, fresh_share=random.choice([0.0, 0.3])))
        retry = [
            Retry(entry.seq, 0, 0, isolated=False)
            for entry in batch.entries
            if entry.sends == 0 and random.random() < 0.2
        ]
        again = {one.seq for one in retry}
        delivered = [entry.seq for entry in batch.entries if entry.seq not in again]
        assert (
            await outbox.queue.settle(Settlement(batch.claim, delivered=delivered, retry=retry))
            == 0
        )
        wanted -= {entry.event_id for entry in batch.entries if entry.seq not in again}


async def test_a_mark_waits_for_a_transaction_that_still_writes(
    outbox: Outbox, postgres_url: str
) -> None:
    with (
        psycopg.connect(postgres_url, autocommit=True) as looking,
        psycopg.connect(postgres_url) as late,
    ):
        late.execute(APPEND_LATE, {"id": "late"})
        await append_all(outbox, 20)
        others = {row.id for row in await outbox.inspector.rows(FILTER)}
        await drain(outbox, others)
        look(looking, 5)
        [(ready_from,)] = looking.execute(MARK).fetchall()
        late.commit()
        [(seq,)] = looking.execute("SELECT seq FROM outbox WHERE event_id = 'late'").fetchall()
        assert ready_from <= seq
        await drain(outbox, {"late"})

        async def passed() -> bool:
            look(looking)
            return bool(looking.execute(MARK).fetchall()[0][0] > seq)

        await eventually(passed)


async def test_a_transaction_that_only_reads_holds_up_no_mark(
    outbox: Outbox, postgres_url: str
) -> None:
    with (
        psycopg.connect(postgres_url, autocommit=True) as looking,
        psycopg.connect(postgres_url) as idle,
    ):
        idle.execute("SELECT count(*) FROM outbox_ready")
        idle.execute("CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT 1")
        await append_all(outbox, 5)
        await drain(outbox, {row.id for row in await outbox.inspector.rows(FILTER)})
        await passes_all(looking)


async def test_an_application_that_appended_and_does_not_commit_holds_up_no_mark(
    outbox: Outbox, postgres_url: str
) -> None:
    """Its event has no place in a lane before its commit, and comes after it."""
    with (
        psycopg.connect(postgres_url, autocommit=True) as looking,
        psycopg.connect(postgres_url) as application,
    ):
        [(late,)] = application.execute("SELECT outbox.append('n', '{}')").fetchall()
        await append_all(outbox, 5)
        await drain(outbox, {row.id for row in await outbox.inspector.rows(FILTER)})
        await passes_all(looking)
        application.commit()
        await drain(outbox, {late})


async def test_every_row_arrives_however_late_its_transaction_commits(
    outbox: Outbox, postgres_url: str
) -> None:
    late_ids = {f"late-{number}" for number in range(60)}
    done = asyncio.Event()

    async def append_late(event_id: str) -> None:
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            await asyncio.sleep(random.uniform(0, 2))
            await connection.execute(APPEND_LATE, {"id": event_id})
            await asyncio.sleep(random.choice([0.0, 0.05, 0.5, 1.5, 3.0]))

    async def append_steadily() -> set[str]:
        made: set[str] = set()
        while not done.is_set():
            made |= {event.id for event in await append_all(outbox, 5)}
        return made

    def look_steadily() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as looking:
            while not done.is_set():
                look(looking)

    steady = asyncio.create_task(append_steadily())
    looking = asyncio.create_task(asyncio.to_thread(look_steadily))
    draining = asyncio.create_task(drain(outbox, set(late_ids)))
    await asyncio.gather(*(append_late(event_id) for event_id in late_ids))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await draining
    done.set()
    await looking
    made = await steady
    unsettled = {row.id for row in await outbox.inspector.rows(FILTER) if row.state == "pending"}
    await drain(outbox, unsettled & made)
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivering) == (0, 0)
    assert stats.delivered == len(made) + len(late_ids)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert connection.execute(RECOUNT).fetchall() == [(0,)]


def test_a_clock_that_is_set_back_puts_the_marks_of_time_back(postgres_url: str) -> None:
    """Rows that came back under the earlier clock lie before the later marks."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox_marks (made_at, due_from, isolated_from, lease_from, safe_at) "
            "SELECT clock_timestamp() + interval '1 hour', clock_timestamp() + interval '1 hour', "
            "clock_timestamp(), clock_timestamp(), clock_timestamp() + interval '1 hour'"
        )
        look(connection)
        assert connection.execute(
            "SELECT due_from = '-infinity' AND lease_from = '-infinity' FROM outbox_mark"
        ).fetchall() == [(True,)]
