"""The counts stay exact while changes are folded into them."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from service.errors import TooManyPendingError
from service.outbox.fair_share import FairShare
from service.outbox.model import Filter
from service.outbox.owner_share import OwnerShare
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.marks import LOOK
from service.outbox.postgres.recount import RECOUNT
from tests.support.storage import (
    PostgresStorage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
)

ALL_FOLDED = """
SELECT changes_folded >= (SELECT coalesce(max(no), 0) FROM outbox_changes) FROM outbox_meta
"""
WRONG = "UPDATE outbox_counts SET pending = pending + 1, stored_bytes = stored_bytes - 7"


async def fold_all(connection: psycopg.Connection) -> None:
    async def folded() -> bool:
        connection.execute(LOOK, {"interval_seconds": 0.0})
        connection.execute(FOLD)
        return bool(connection.execute(ALL_FOLDED).fetchall()[0][0])

    await eventually(folded)


async def test_folded_counts_say_what_is_stored(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        async with storage.open() as outbox:
            kept = await append_all(outbox, 5)
            await deliver(outbox, await claim(outbox))
            await fold_all(connection)
            waiting = await append_all(outbox, 3, "u-2")
            gone = await append_all(outbox, 1, "u-3")
            await fold_all(connection)
            await outbox.repairs.discard(Filter(ids=(gone[0].id,)), actor="ada")
            await fold_all(connection)
            assert await outbox.inspector.owners(10) == [
                OwnerShare("u-1", 5, sum(len(one.payload) for one in kept)),
                OwnerShare("u-2", 3, sum(len(one.payload) for one in waiting)),
            ]
        assert connection.execute(RECOUNT).fetchall() == [(0,)]
        rows = connection.execute("SELECT owner, pending, stored FROM outbox_counts ORDER BY owner")
        assert rows.fetchall() == [("u-1", 0, 5), ("u-2", 3, 3)]


async def test_a_process_that_starts_knows_the_folded_counts_at_its_first_post(
    postgres_url: str,
) -> None:
    storage = PostgresStorage(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        async with storage.open() as outbox:
            await outbox.intake.append(event(size=900))
            await deliver(outbox, await claim(outbox))
            await append_all(outbox, 2, "u-2")
            await fold_all(connection)
    async with storage.open(max_bytes_per_user=1000, max_pending_per_user=2) as outbox:
        assert outbox.undelivered == 2
        for owner in ("u-1", "u-2"):
            with pytest.raises(TooManyPendingError):
                await outbox.intake.append(event(owner))
        await asyncio.wait_for(outbox.intake.append(event("u-3")), 5)


async def test_an_event_that_is_appended_in_sql_beside_a_flood_keeps_its_share(
    postgres_url: str,
) -> None:
    storage = PostgresStorage(postgres_url)
    async with storage.open(fair_share=FairShare(heavy_rows=50)) as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            append = "SELECT outbox.append('n', '{}', %s)"
            connection.execute(append, ("before",))
            await append_all(outbox, 60, "flood")
            await fold_all(connection)
            [(late,)] = connection.execute(append, ("ada",)).fetchall()
            marked = connection.execute("SELECT count(express_seq) FROM outbox_ready").fetchall()
            assert marked == [(1,)]
        await eventually(lambda: asyncio.sleep(0, outbox.queue._express.may_wait))
        assert late in {entry.event_id for entry in (await claim(outbox, ask(10))).entries}


async def test_a_recount_puts_wrong_counts_right(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            [one] = await append_all(outbox, 1)
            await fold_all(connection)
            connection.execute(WRONG)
            assert connection.execute(RECOUNT).fetchall() == [(1,)]
            assert connection.execute(RECOUNT).fetchall() == [(0,)]
        assert await outbox.inspector.owners(10) == [OwnerShare("u-1", 1, len(one.payload))]
