"""What partitions and plans cost on PostgreSQL, by hand: `python -m bench.postgres_partitions`.

The server's processor time for a statement, on one connection, with few and with more partitions:
planned once, as the service does it; planned as PostgreSQL decides; and planned each time, as
behind a pooler without prepared statements. All in turns in one run. Compare ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import psycopg

from service.outbox.model import ClaimRequest, Settlement
from service.outbox.postgres.appends import APPEND, Append, columns
from service.outbox.postgres.claims import CLAIM, claim_values
from service.outbox.postgres.connection import OutboxConnection, set_up
from service.outbox.postgres.settlements import SETTLE, settle_values
from service.outbox.schema import migrate
from tests.support.partitions import close_partition
from tests.support.postgres_rows import pass_rows_through
from tests.support.postgres_server import running_postgres
from tests.support.storage import event

PARTITIONS = (2, 4, 7)
BATCHES = (1, 20, 100)
ROUNDS, TURNS, WARM_UP = 3, 100, 12
_ROWS = 20_000
_NOBODY: Any = None  # waits
_WAYS = {
    "once": "",
    "decided": "SET plan_cache_mode = auto; SET enable_seqscan = on; SET enable_bitmapscan = on",
    "each time": "",
}


class Session:
    """A connection whose backend's processor time is added up by statement."""

    def __init__(self, connection: OutboxConnection) -> None:
        self.microseconds: Counter[str] = Counter()
        self.connection = connection
        self._stat = Path(f"/proc/{connection.info.backend_pid}/schedstat")

    async def run(self, name: str, statement: str, given: dict[str, Any]) -> list[Any]:
        before = self._spent()
        async with self.connection.cursor(binary=True) as cursor:
            await cursor.execute(statement.encode(), given)
            rows = await cursor.fetchall()
        self.microseconds[name] += (self._spent() - before) // 1000
        return rows

    def _spent(self) -> int:
        return int(self._stat.read_text().split()[0])


async def turns(url: str, way: str, batch: int) -> dict[str, float]:
    """Microseconds for an append, a claim and a settlement of `batch` events."""
    connection = await OutboxConnection.connect(url, autocommit=True)
    async with connection:
        await set_up(connection)
        if way == "each time":
            connection.prepare_threshold = None
        if _WAYS[way]:
            await connection.execute(_WAYS[way])
        session = Session(connection)
        for number in range(-WARM_UP, TURNS):
            if number == 0:
                session.microseconds.clear()
            await _turn(session, f"claim {number}", batch)
    return {name: spent / TURNS for name, spent in session.microseconds.items()}


async def _turn(session: Session, claim: str, batch: int) -> None:
    posts = [event(f"u-{n % 50}", size=400) for n in range(batch)]
    given = columns(
        [Append((one,), (None,), None, express=False, done=_NOBODY, deadline=0.0) for one in posts]
    )
    await session.run("append", APPEND, given)
    wanted = claim_values(ClaimRequest(batch, 2**20, 60.0, 0.2), claim, 50_000)
    rows = await session.run("claim", CLAIM, wanted)
    settled = settle_values(Settlement(claim, [row[0] for row in rows]))
    await session.run("settle", SETTLE, settled)


def main() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_postgres(settings={"autovacuum": "off"}))
        if server is None:
            sys.exit("there is no PostgreSQL on this machine")
        urls = {}
        for partitions in PARTITIONS:  # the kept one among them
            url = urls[partitions] = stack.enter_context(server.database(f"of_{partitions}"))
            migrate(url)
            for number in range(partitions - 1):
                if number:
                    close_partition(url)
                pass_rows_through(url, _ROWS)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
        for batch in BATCHES:
            found = defaultdict(list)
            for _ in range(ROUNDS):
                for partitions, url in urls.items():
                    for way in _WAYS:
                        found[partitions, way].append(asyncio.run(turns(url, way, batch)))
            for (partitions, way), spent in found.items():
                told = (
                    f"{name} {statistics.median(x[name] for x in spent):6.0f}" for name in spent[0]
                )
                print(
                    f"{batch:4} events, {partitions} partitions, {way:10}", *told, "us", flush=True
                )


if __name__ == "__main__":
    main()
