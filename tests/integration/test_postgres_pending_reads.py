"""A look among pending rows on PostgreSQL is bounded: by rows, and by the dead ones beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from service.console.operations.search import Search, SearchPolicy
from service.outbox.model import Filter, Retry, Settlement, State
from service.outbox.postgres.positions import REACH_OF_OWNER, REACH_PENDING
from service.outbox.postgres.rows import count_statement, filter_values, rows_statement
from service.outbox.schema import migrate
from tests.support.explained import PlannedOnce, explained, pages
from tests.support.partitions import close_partition
from tests.support.postgres_rows import analyze, append_rows, catch_up, pass_rows_through
from tests.support.postgres_server import PostgresServer
from tests.support.storage import Outbox, PostgresStorage, append_all, claim

SKIP_NUMBERS = "SELECT setval('outbox_seq_seq', last_value + 250000) FROM outbox_seq_seq"
NUMBERS, WINDOW = 1_000, 200
WAITING = 5_000
GONE = (2_000, 20_000)  # newer than those that wait
MORE_PAGES = 60
SMALL = SearchPolicy(first_window=2, window=3, budget_seconds=60.0)
AT_ONCE = SearchPolicy(first_window=50, window=50, budget_seconds=60.0)


@dataclass
class Beside:
    """An outbox whose newest rows died beside an open transaction."""

    connection: psycopg.Connection[Any]

    def pages(self, statement: str, given: dict[str, Any]) -> int:
        return pages(explained(self.connection, statement, given))

    def reached(self, statement: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        return psycopg.ClientCursor(self.connection).execute(statement, given).fetchall()


@pytest.fixture(scope="module")
def outboxes(postgres: PostgresServer) -> Iterator[list[Beside]]:
    with contextlib.ExitStack() as stack:
        made = []
        for gone in GONE:
            url = stack.enter_context(postgres.database(f"pending_{gone}"))
            migrate(url)
            idle = stack.enter_context(psycopg.connect(url))
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT count(*) FROM outbox")
            append_rows(url, WAITING)
            pass_rows_through(url, gone, above=WAITING)
            analyze(url)
            asyncio.run(catch_up(url))
            connection = stack.enter_context(psycopg.connect(url, autocommit=True))
            PlannedOnce(connection)  # sets up the session
            made.append(Beside(connection))
        yield made


def reach_values(before: int | None = None, **more: object) -> dict[str, Any]:
    return {"skipped": WINDOW - 1, "before_seq": before, "numbers": NUMBERS, **more}


@pytest.mark.parametrize("place", ["dead", "waiting"])
def test_a_window_of_pending_rows_costs_the_same_beside_more_dead_ones(
    outboxes: list[Beside], place: str
) -> None:
    costs = []
    for one in outboxes:
        before = None if place == "dead" else WAITING + 1
        given = reach_values(before)
        [(reached, _, is_last)] = one.reached(REACH_PENDING, given)
        assert not is_last
        wanted = Filter(
            state=State.PENDING, user_id="nobody", before_seq=before, after_seq=reached - 1
        )
        costs.append(
            one.pages(REACH_PENDING, given)
            + one.pages(rows_statement(wanted), filter_values(wanted))
            + one.pages(count_statement(wanted), filter_values(wanted))
        )
    assert costs[1] <= costs[0] + MORE_PAGES, costs


@pytest.mark.parametrize("state", [None, State.PENDING])
def test_a_window_of_an_owner_costs_the_same_beside_more_dead_rows(
    outboxes: list[Beside], state: State | None
) -> None:
    costs = []
    for one in outboxes:
        given = reach_values(owner="u-7")
        given["skipped"] = 29
        [(reached, _)] = one.reached(REACH_OF_OWNER, given)
        wanted = Filter(state=state, owner="u-7", name="none", after_seq=reached - 1)
        costs.append(
            one.pages(REACH_OF_OWNER, given)
            + one.pages(rows_statement(wanted), filter_values(wanted))
            + one.pages(count_statement(wanted), filter_values(wanted))
        )
    assert costs[1] <= costs[0] + MORE_PAGES, costs


@pytest.mark.parametrize("policy", [SMALL, AT_ONCE])
async def test_pending_rows_are_found_whatever_lies_between_their_numbers(
    postgres_partitioned: str, policy: SearchPolicy
) -> None:
    async with PostgresStorage(postgres_partitioned).open() as outbox:
        ids = await scattered(outbox, postgres_partitioned)
        search = Search(outbox.inspector, outbox.positions, policy)
        assert await all_pages(search) == ids[::-1]
        assert await all_pages(search, user_id="nobody") == []
        await put_back(outbox)
        assert await all_pages(search) == ids[::-1]


@pytest.fixture
def postgres_partitioned(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("scattered") as url:
        migrate(url)
        yield url


async def scattered(outbox: Outbox, url: str) -> list[str]:
    """Append rows with wide gaps between their numbers, in two partitions; their ids."""
    ids = [one.id for one in await append_all(outbox, 3)]
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(SKIP_NUMBERS)
            ids += [one.id for one in await append_all(outbox, 3)]
    close_partition(url)
    return ids + [one.id for one in await append_all(outbox, 3)]


async def put_back(outbox: Outbox) -> None:
    """Send the pending rows, and have them wait until they are due again."""
    batch = await claim(outbox)
    again = [Retry(one.seq, 60.0, 1, isolated=one.seq % 2 == 0) for one in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, retry=again))


async def all_pages(search: Search, **wanted: object) -> list[str]:
    found: list[str] = []
    before = None
    while True:
        page = await search.find(Filter(state=State.PENDING, limit=2, before_seq=before, **wanted))
        found += [row.id for row in page.rows]
        before = page.next_seq
        if before is None:
            return found
