"""What a move reads and writes: pages, not rows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from service.outbox.model import Filter
from service.outbox.move.move import PAGE
from service.outbox.move.transfer import TransferRow
from service.outbox.postgres.transfer import EVENTS, PostgresTransferEvents, open_postgres_transfer
from tests.support.explained import explained, nodes
from tests.support.moving import move
from tests.support.storage import (
    PostgresStorage,
    SqliteStorage,
    append_all,
    ask,
    claim,
    deliver,
    event,
)

ROWS = 3000


async def test_a_page_of_claimed_events_reads_each_claim_once(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        await asyncio.gather(*(append_all(outbox, ROWS // 30) for _ in range(30)))
        for _ in range(ROWS // 500):
            await claim(outbox, ask(500))
        with psycopg.connect(postgres_url) as connection:
            plan = explained(connection, EVENTS, {"after": 0, "limit": PAGE})
    assert plan["Actual Rows"] == PAGE
    rows_read = sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan))
    assert rows_read < 10 * (ROWS + PAGE)


class Counting(psycopg.Connection[Any]):
    """Counts the statements that are not those of a transaction."""

    statements = 0

    def execute(self, *given: Any, **named: Any) -> psycopg.Cursor[Any]:
        self.statements += 1
        return super().execute(*given, **named)


async def test_a_page_is_written_by_one_statement_whatever_its_rows_are(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 20)
        await deliver(outbox, await claim(outbox, ask(10)))
    with open_postgres_transfer(postgres_url) as there:
        rows = there.events.page(0, PAGE)
    fresh = [_copy(row, number) for number, row in enumerate(rows)]
    with Counting.connect(postgres_url, autocommit=True) as connection:
        written = PostgresTransferEvents(connection)
        written.write(fresh, {row.id: b"{}" for row in fresh})
        assert connection.statements == 1
        found = written.page(0, PAGE)
    assert [row.id for row in found] == [row.id for row in rows + fresh]
    kept = [msgspec.structs.replace(row, payload_sha256="", inngest_id="") for row in found[20:]]
    assert [row.digest() for row in kept] == [row.digest() for row in fresh]


def _copy(row: TransferRow, number: int) -> TransferRow:
    notes = ((1, "first"), (2, "second"))[: number % 3]
    return msgspec.structs.replace(
        row, id=f"copy-{number}", history=notes, payload_sha256="", inngest_id=""
    )


async def test_events_that_are_too_many_bytes_for_one_statement_arrive(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        large = [event(size=3 * 2**20) for _ in range(12)]
        for one in large:
            await outbox.intake.append(one)
    await move(f"sqlite:///{path}", target)
    async with PostgresStorage(target).open() as moved:
        rows = await moved.inspector.rows(Filter(limit=20))
        assert [row.id for row in reversed(rows)] == [one.id for one in large]
        assert await moved.inspector.payload(large[-1].id) == large[-1].payload
