"""The counts stay exact while changes are folded into them."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from service.errors import TooManyPendingError
from service.outbox.fair_share import FairShare
from service.outbox.model import Named
from service.outbox.owner_share import OwnerShare
from service.outbox.postgres.counts import READ_CHANGES
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.inspector import STATS
from service.outbox.postgres.marks import LOOK
from service.outbox.postgres.recount import RECOUNT
from service.outbox.postgres.store import open_postgres_operations
from service.outbox.schema import migrate
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
WRONG = """
UPDATE outbox_carried SET pending = ARRAY[pending[1] + 1], stored_bytes = ARRAY[stored_bytes[1] - 7]
"""


CHANGED = "INSERT INTO outbox_changes (owners, pending, stored) VALUES (%s, %s, %s)"
HELD = "SELECT owner, sum(pending)::int, sum(stored)::int FROM {table} GROUP BY owner"


def held(connection: psycopg.Connection, table: str = "outbox_by_owner") -> dict[str, object]:
    """How many rows of each owner wait, and how many are stored."""
    rows = connection.execute(HELD.format(table=table)).fetchall()
    return {owner: tuple(counts) for owner, *counts in rows}


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
            await outbox.repairs.discard(Named((gone[0].id,)), actor="ada")
            await fold_all(connection)
            assert await outbox.inspector.owners(10) == [
                OwnerShare("u-1", 5, sum(len(one.payload) for one in kept)),
                OwnerShare("u-2", 3, sum(len(one.payload) for one in waiting)),
            ]
        assert connection.execute(RECOUNT).fetchall() == [(0,)]
        assert held(connection) == {"u-1": (0, 5), "u-2": (3, 3)}


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


async def test_events_that_are_stored_while_the_counts_are_read_are_counted_once(
    postgres_url: str,
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        run = outbox.pool.run

        async def run_beside(statement: str, *given: Any, **options: Any) -> Any:
            if statement == READ_CHANGES and meanwhile:
                await append_all(outbox, meanwhile.pop())
                rows = await run(statement, *given, **options)
                await append_all(outbox, 1)
                return rows
            return await run(statement, *given, **options)

        meanwhile: list[int] = []
        outbox.pool.run = run_beside  # type: ignore[method-assign]
        await append_all(outbox, 2)
        meanwhile.append(3)
        await outbox._quota._read()
        assert outbox.undelivered == 6
        await outbox._quota._read()
        assert outbox.undelivered == 6


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


async def test_counts_are_carried_until_they_changed_much_or_an_hour_has_passed(
    postgres_url: str,
) -> None:
    """Each write of an owner's row leaves a version that folds step over."""
    migrate(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE outbox_meta SET heavy_rows = 20")

        async def more(**owners: int) -> dict[str, object]:
            changed = (list(owners), list(owners.values()), list(owners.values()))
            connection.execute(CHANGED, changed)
            await fold_all(connection)
            return held(connection, "outbox_counts")

        for _ in range(3):
            assert await more(calm=3, flood=3) == {}
        assert held(connection) == {"calm": (9, 9), "flood": (9, 9)}
        assert await more(flood=3) == {"flood": (12, 12)}
        assert await more(flood=7) == {"flood": (12, 12)}
        assert await more(flood=1) == {"flood": (20, 20)}
        assert held(connection) == {"calm": (9, 9), "flood": (20, 20)}
        connection.execute("UPDATE outbox_carried SET since = since - interval '61 minutes'")
        assert await more(late=1) == {"calm": (9, 9), "flood": (20, 20), "late": (1, 1)}
        assert await more(calm=1) == {"calm": (9, 9), "flood": (20, 20), "late": (1, 1)}
        assert held(connection) == {"calm": (10, 10), "flood": (20, 20), "late": (1, 1)}


async def test_a_recount_puts_wrong_counts_right(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            [one] = await append_all(outbox, 1)
            await fold_all(connection)
            connection.execute(WRONG)
            assert connection.execute(RECOUNT).fetchall() == [(1,)]
            assert connection.execute(RECOUNT).fetchall() == [(0,)]
        assert await outbox.inspector.owners(10) == [OwnerShare("u-1", 1, len(one.payload))]


async def test_all_figures_are_of_one_moment(postgres_url: str) -> None:
    async with open_postgres_operations(postgres_url) as outbox:
        asked, until = [], outbox.pool._until
        here = asyncio.current_task()

        async def noted(deadline: float, statement: Any, *given: Any, **named: Any) -> Any:
            if asyncio.current_task() is here:  # the outbox's own tasks ask beside it
                asked.append(statement)
            return await until(deadline, statement, *given, **named)

        outbox.pool._until = noted
        await outbox.inspector.stats()
        assert asked == [STATS]
