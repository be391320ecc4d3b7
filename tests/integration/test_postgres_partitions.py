"""Partitions of a PostgreSQL outbox: closing and dropping them loses and repeats no event."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from service.errors import IdempotencyKeyReusedError
from service.outbox.model import ClaimRequest, Dead, Filter, Retry, Settlement, State
from service.outbox.postgres.partitions import PartitionPolicy, PostgresPartitions
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.recount import RECOUNT
from tests.support.calls import key, replayed
from tests.support.named_rows import named
from tests.support.partitions import close_partition
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
    ids,
)

OFTEN = PartitionPolicy(share=0, least_seconds=0, least_rows=0)
OPEN = "SELECT max(number) FROM outbox_partitions WHERE opened_at IS NOT NULL"
PARTITIONS = "SELECT relid::regclass::text FROM pg_partition_tree('outbox') WHERE isleaf"


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with new_outbox(postgres, "partitions") as made:
        yield made


@pytest.fixture
async def outbox(url: str) -> AsyncIterator[Outbox]:
    async with PostgresStorage(url).open() as opened:
        yield opened


@pytest.fixture
async def partitions(url: str) -> AsyncIterator[PostgresPartitions]:
    async with PostgresPool(url, max_connections=1) as pool:
        yield PostgresPartitions(pool, OFTEN)


def ask_database(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


async def close(url: str) -> None:
    """Close the open partition, beside whatever runs."""
    await asyncio.to_thread(close_partition, url)


async def drop(partitions: PostgresPartitions, rows: int) -> None:
    """Drop what has so many rows, beside whatever runs: a table that is in use puts it off."""
    await eventually(lambda: partitions.drop_expired(0), lambda dropped: dropped == rows)


async def test_what_was_delivered_goes_with_its_partition_and_leaves_the_counts(
    outbox: Outbox, partitions: PostgresPartitions, url: str
) -> None:
    await append_all(outbox, 3)
    assert await deliver(outbox, await claim(outbox)) == 0

    async def closed() -> bool:
        assert await partitions.drop_expired(0) == 0
        return ask_database(url, OPEN) == [(1,)]

    await eventually(closed)
    await append_all(outbox, 2)
    await drop(partitions, 3)
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivered) == (2, 0)
    assert [share.rows for share in await outbox.inspector.owners(10)] == [2]
    assert ask_database(url, RECOUNT) == [(0,)]
    assert ("outbox_p0",) not in ask_database(url, PARTITIONS)


async def test_rows_that_are_not_old_and_delivered_move_with_all_that_is_known_of_them(
    outbox: Outbox, partitions: PostgresPartitions, url: str
) -> None:
    events = await append_all(outbox, 6)
    batch = await claim(outbox, ask(5))
    dead, later, sent, held, _ = (entry.seq for entry in batch.entries)
    settlement = Settlement(
        batch.claim,
        sent=[sent],
        delivered=[batch.entries[4].seq],
        retry=[Retry(later, 0, 1, isolated=False, note="busy")],
        dead=[Dead(dead, 1, "rejected", "no")],
    )
    assert await outbox.queue.settle(settlement) == 0
    last = await claim(outbox, ask(1, fresh_share=1.0))
    assert await deliver(outbox, last) == 0
    before = {row.id: row for row in await outbox.inspector.rows(Filter())}
    await close(url)
    await drop(partitions, 2)

    after = {row.id: row for row in await outbox.inspector.rows(Filter())}
    assert set(after) == {one.id for one in events[:4]}
    for event_id, row in after.items():
        assert (row.state, row.history) == (before[event_id].state, before[event_id].history)
    states = [after[one.id].state for one in events[:4]]
    assert states == [State.DEAD, State.PENDING, State.SENT, State.DELIVERING]
    assert await outbox.confirmations.confirm([sent]) == 1
    assert await outbox.queue.settle(Settlement(batch.claim, delivered=[held])) == 0
    assert len(await outbox.repairs.replay(await named(outbox.inspector), actor="ada")) == 1
    assert {entry.seq for entry in (await claim(outbox)).entries} == {dead, later}
    assert ask_database(url, RECOUNT) == [(0,)]


async def test_a_new_event_that_waits_keeps_its_partition(
    outbox: Outbox, partitions: PostgresPartitions, url: str
) -> None:
    await append_all(outbox, 2)
    assert await deliver(outbox, await claim(outbox, ask(1))) == 0
    await close(url)
    assert await partitions.drop_expired(0) == 0
    assert await deliver(outbox, await claim(outbox)) == 0
    await drop(partitions, 2)


async def test_an_id_and_a_key_are_known_in_later_partitions(
    outbox: Outbox, partitions: PostgresPartitions, url: str
) -> None:
    first = event()
    await outbox.intake.append(first, key=key("a"))
    await close(url)
    again = await outbox.intake.append(event(), key=key("a"))
    assert (again.event_id, again.replayed) == (first.id, True)
    assert (await outbox.intake.append(first)).event_id == first.id
    several = await outbox.intake.append_all([event(), event()], [key("b"), key("a")])
    assert replayed(several) == [False, True]
    for refused in ((event(),), (event(), event())):
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.intake.append_all(refused, [key("a", b"2"), None][: len(refused)])
    assert (await outbox.inspector.stats()).pending == 2


async def test_a_key_of_an_application_is_known_in_later_partitions(url: str) -> None:
    append = "SELECT outbox.append('n', '{}', 'u', idempotency_key => 'a')"
    [first] = ask_database(url, append)
    with psycopg.connect(url) as early:
        early.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        early.execute("SELECT 1 FROM outbox_meta")
        await close(url)
        assert ask_database(url, append) == [first]
        with pytest.raises(psycopg.errors.SerializationFailure):
            early.execute("SELECT outbox.append('n', '{}', 'u', idempotency_key => 'b')")
    assert ask_database(url, "SELECT count(*) FROM outbox") == [(1,)]


async def test_events_of_the_next_partition_are_claimed_in_their_turn(
    outbox: Outbox, url: str
) -> None:
    events = await append_all(outbox, 3)
    await close(url)
    events += await append_all(outbox, 3)
    claimed: list[str] = []
    while len(claimed) < len(events):
        claimed += ids(await claim(outbox, ask(2)))
    assert claimed == [one.id for one in events]

    async def caught_up() -> bool:
        [(mark, last)] = ask_database(
            url, "SELECT ready_from, (SELECT max(seq) FROM outbox) FROM outbox_mark"
        )
        return mark > last

    await eventually(caught_up)


async def test_numbers_in_inngest_go_on_over_a_closing(outbox: Outbox, url: str) -> None:
    await append_all(outbox, 2)
    await close(url)
    await append_all(outbox, 1)
    seqs = [seq % 2**32 for (seq,) in ask_database(url, "SELECT seq FROM outbox ORDER BY seq")]
    assert seqs == [1, 2, 3]


async def test_a_closing_that_is_rolled_back_after_it_moved_the_numbers_is_repeated(
    outbox: Outbox, url: str
) -> None:
    await append_all(outbox, 1)
    with psycopg.connect(url) as connection:

        async def moved_the_numbers() -> bool:
            connection.execute("SELECT outbox_make_partition()")
            connection.commit()
            closed = connection.execute("SELECT outbox_close_partition()").fetchall()
            connection.rollback()
            return closed == [(True,)]

        await eventually(moved_the_numbers)
    await append_all(outbox, 1)
    await close(url)
    await append_all(outbox, 1)
    assert [len(ids(await claim(outbox))) for _ in range(2)] == [1, 2]
    assert ask_database(url, OPEN) == [(1,)]


async def test_beside_closings_and_drops_no_post_fails_and_each_event_arrives_once(
    outbox: Outbox, partitions: PostgresPartitions, url: str
) -> None:
    arrived: list[str] = []

    async def post() -> list[str]:
        return [
            (await outbox.intake.append(event(), key=key(f"{number}"))).event_id
            for number in range(40)
        ]

    async def send() -> None:
        while True:
            batch = await claim(outbox, ClaimRequest(20, 2**20, 60.0, 0.2))
            arrived.extend(entry.event_id for entry in batch.entries)
            assert await deliver(outbox, batch) == 0

    async def turn() -> int:
        dropped = 0
        while True:
            dropped += await partitions.drop_expired(0)
            if dropped >= 30:
                return dropped

    sender = asyncio.create_task(send())
    posted, dropped = await asyncio.gather(post(), turn())

    async def all_arrived() -> bool:
        return sender.done() or len(arrived) >= len(posted)

    await eventually(all_arrived)
    sender.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sender
    assert sorted(arrived) == sorted(posted)
    assert ask_database(url, "SELECT count(*) FROM outbox") == [(len(posted) - dropped,)]
    assert ask_database(url, RECOUNT) == [(0,)]


async def test_a_transaction_that_has_read_the_events_only_puts_the_drop_off(
    outbox: Outbox, partitions: PostgresPartitions, url: str
) -> None:
    await append_all(outbox, 1)
    assert await deliver(outbox, await claim(outbox)) == 0
    await close(url)
    with psycopg.connect(url) as reading:
        reading.execute("SELECT count(*) FROM outbox")
        assert await partitions.drop_expired(0) == 0
        await append_all(outbox, 1)
    await drop(partitions, 1)


async def test_the_purge_leaves_alone_what_will_be_dropped(outbox: Outbox, url: str) -> None:
    await append_all(outbox, 1)
    assert await deliver(outbox, await claim(outbox)) == 0
    ask_database(url, "UPDATE outbox_done SET settled_at_ms = settled_at_ms - 4000000 RETURNING 1")
    await close(url)
    assert await outbox.repairs.purge(older_than_seconds=3600, actor=None) == 0
    assert await outbox.repairs.purge(older_than_seconds=3600, actor="ada") == 1


async def test_the_purge_deletes_what_could_not_be_dropped_for_long(
    outbox: Outbox, url: str
) -> None:
    await append_all(outbox, 2)
    assert await deliver(outbox, await claim(outbox, ask(1))) == 0
    ask_database(url, "UPDATE outbox_done SET settled_at_ms = settled_at_ms - 9000000 RETURNING 1")
    await close(url)
    assert await outbox.repairs.purge(older_than_seconds=3600, actor=None) == 0
    long_ago = "UPDATE outbox_partitions SET closed_at = closed_at - interval '2 h' RETURNING 1"
    ask_database(url, long_ago)
    assert await outbox.repairs.purge(older_than_seconds=3600, actor=None) == 1
    assert (await outbox.inspector.stats()).pending == 1
