"""No statement of the relay, of the counts or of the figures grows with the rows of the outbox.

Neither with those that wait, nor with those that were delivered, nor with dead ones, which an open
transaction keeps in the tables. The pages that a statement touches are counted by EXPLAIN.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from service.outbox.model import ClaimRequest, Retry, Settlement
from service.outbox.postgres.claims import CLAIM, CLAIM_EXPRESS, NEXT_DUE, claim_values
from service.outbox.postgres.counts import READ_CHANGES, READ_TOTALS
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.inspector import OWNERS, STATS
from service.outbox.postgres.leases import EXPIRE
from service.outbox.postgres.marks import LOOK
from service.outbox.postgres.repairs import PURGE
from service.outbox.postgres.settlements import SETTLE, settle_values
from service.outbox.schema import migrate
from tests.support.postgres_rows import analyze, append_rows, pass_rows_through
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, append_all, claim, event, eventually

EXPRESS = {
    "CTE express_new": "outbox_ready_express",
    "CTE express_delayed": "outbox_ready_express_delayed",
}
MAX_PAGES = 10_000  # of 50,000 dead rows each would be a page
REQUEST = ClaimRequest(100, 2**20, 60.0, 0.2)
STATEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "look": (LOOK, {"interval_seconds": 0.0}),
    "claim": (CLAIM, claim_values(REQUEST, "c-1", 50_000)),
    "express claim": (CLAIM_EXPRESS, claim_values(REQUEST, "c-1", 50_000, express_turn=True)),
    "next due": (NEXT_DUE, {"isolated": True, "window": 50_000}),
    "expire": (EXPIRE, {"sent": True}),
    "fold": (FOLD, {}),
    "totals": (READ_TOTALS, {"seconds": 5}),
    "stats": (STATS, {}),
    "owners": (OWNERS, {"limit": 20}),
    "purge": (PURGE, {"older_than_ms": 3_600_000, "page": 500, "from_ms": 0}),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((50_000, 50_000), id="small"),
        pytest.param(
            (2_000_000, 500_000),
            id="large",
            marks=[pytest.mark.soak, pytest.mark.timeout(900)],
        ),
    ],
)
def beside_a_transaction(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[str]:
    """An outbox of dead, delivered and waiting rows, and a transaction that began before them."""
    gone, waiting = request.param
    with postgres.database("bounded") as url:
        migrate(url)
        with psycopg.connect(url) as idle:
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT count(*) FROM outbox")
            pass_rows_through(url, gone)
            append_rows(url, waiting)
            analyze(url)
            asyncio.run(_catch_up(url))
            yield url


async def _catch_up(url: str) -> None:
    """Look until the marks have passed all that is gone, as a service does by and by."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def passed() -> bool:
            await connection.execute(LOOK, {"interval_seconds": 0.0})
            cursor = await connection.execute(
                "SELECT ready_from = (SELECT min(seq) FROM outbox_ready WHERE due_at IS NULL) "
                "AND lease_from > clock_timestamp() - interval '5 s' FROM outbox_mark"
            )
            return bool((await cursor.fetchall())[0][0])

        await eventually(passed, within_seconds=60)
        await connection.execute(FOLD)
        await connection.execute(FOLD)


def pages(connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> int:
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
    [(plans,)] = cursor.fetchall()
    return int(plans[0]["Plan"]["Shared Hit Blocks"] + plans[0]["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_touches_few_pages(beside_a_transaction: str, name: str) -> None:
    with psycopg.connect(beside_a_transaction) as connection:
        assert pages(connection, *STATEMENTS[name]) <= MAX_PAGES
        connection.rollback()


def test_express_rows_are_found_by_an_index_of_their_own(beside_a_transaction: str) -> None:
    """No claim looks for them among the rows that wait: it would cost most while there are none."""
    with psycopg.connect(beside_a_transaction) as connection:
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(f"EXPLAIN (FORMAT JSON) {CLAIM_EXPRESS}", STATEMENTS["claim"][1])
        [(plans,)] = cursor.fetchall()
        for part, index in EXPRESS.items():
            [one] = [one for one in nodes(plans[0]["Plan"]) if one.get("Subplan Name") == part]
            assert {each["Index Name"] for each in nodes(one) if "Index Name" in each} == {index}
            assert not {each["Node Type"] for each in nodes(one)} & {"Sort", "Seq Scan"}
        connection.rollback()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for one in plan.get("Plans", []):
        yield from nodes(one)


def test_a_settlement_touches_few_pages(beside_a_transaction: str) -> None:
    with psycopg.connect(beside_a_transaction) as connection:
        rows = connection.execute(CLAIM, claim_values(REQUEST, "c-0", 50_000)).fetchall()
        first, *rest = (row[0] for row in rows)
        settlement = Settlement("c-0", delivered=rest, retry=[Retry(first, 1.0, 1, isolated=True)])
        assert pages(connection, SETTLE, settle_values(settlement)) <= MAX_PAGES
        connection.rollback()


def test_reading_the_counts_again_touches_what_changed(beside_a_transaction: str) -> None:
    with psycopg.connect(beside_a_transaction) as connection:
        [(after,)] = connection.execute("SELECT safe_change FROM outbox_mark").fetchall()
        assert pages(connection, READ_CHANGES, {"after": after}) <= MAX_PAGES


async def test_events_arrive_beside_the_open_transaction(beside_a_transaction: str) -> None:
    """The newest rows have a share of each claim, so a new event does not wait for a backlog."""
    async with PostgresStorage(beside_a_transaction).open(
        max_pending=10**9, max_pending_per_user=10**9
    ) as outbox:
        await append_all(outbox, 10)
        newest = event()
        await outbox.intake.append(newest)
        batch = await claim(outbox, ClaimRequest(100, 2**20, 60.0, 0.5))
        assert newest.id in {entry.event_id for entry in batch.entries}
        assert (
            await outbox.queue.settle(
                Settlement(batch.claim, delivered=[entry.seq for entry in batch.entries])
            )
            == 0
        )
