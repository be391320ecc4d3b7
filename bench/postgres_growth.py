"""Sizes of a PostgreSQL outbox while millions of events go through, and what their removal costs.

`python -m bench.postgres_growth [--events N] [--retention SECONDS]`, by hand, on a server of its
own that syncs. First events go through while the retention removes what is old. Then posts come
beside nothing, beside a drop and beside a deletion of the same number of rows. Compare ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

import psycopg
import uvloop

from service.observe.recorder import NullRecorder
from service.outbox.postgres.partitions import PartitionPolicy, PostgresPartitions
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.store import PostgresOutbox, open_postgres_outbox
from service.outbox.schema import migrate
from tests.support.postgres_rows import pass_rows_through
from tests.support.postgres_server import PostgresServer, running_postgres
from tests.support.storage import event

_SOON = PartitionPolicy(least_seconds=0, least_rows=0)
_AT_ONCE = PartitionPolicy(share=0, least_seconds=0, least_rows=0)
_PAGE = 5_000
_PURGE_SECONDS = 2.0
_POST_SECONDS = 0.01
_LEAST_POSTS = 200
_LIMITS = {"max_pending": 10**9, "max_pending_per_user": 10**9}
_SIZES = """
SELECT sum(pg_table_size(relid))::bigint, sum(pg_indexes_size(relid))::bigint,
       (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
        WHERE relname LIKE 'outbox%%' AND relkind = 'r'),
       (SELECT count(*) FROM outbox_partitions)
FROM (SELECT relid FROM pg_partition_tree('outbox') WHERE isleaf
      UNION ALL SELECT relid FROM pg_partition_tree('outbox_done') WHERE isleaf) AS leaves
"""


async def go_through(url: str, events: int, retention: float) -> None:
    """Print the sizes at each twentieth of the way."""
    through = [(time.monotonic(), 0)]
    largest = 0.0
    async with PostgresPool(url) as pool:
        purging = asyncio.create_task(_purge(PostgresPartitions(pool, _SOON), retention))
        print(f"{'through':>11}{'in bound':>11}{'tables':>9}{'indexes':>9}{'all':>9}  MB, parts")
        while through[-1][1] < events:
            await asyncio.to_thread(pass_rows_through, url, _PAGE)
            through.append((time.monotonic(), through[-1][1] + _PAGE))
            if through[-1][1] % (events // 20) < _PAGE:
                [(tables, indexes, everything, parts)] = await pool.ask(_SIZES)
                since = through[-1][0] - (1 + _SOON.share) * retention - _PURGE_SECONDS
                bound = through[-1][1] - max([n for at, n in through if at <= since], default=0)
                largest = max(largest, (tables + indexes) / bound)
                shown = "".join(f"{size / 2**20:9.0f}" for size in (tables, indexes, everything))
                print(f"{through[-1][1]:11,}{bound:11,}{shown}{parts:11}", flush=True)
        purging.cancel()
    print(f"at most {largest:.0f} bytes for each event that the bound allows")


async def _purge(partitions: PostgresPartitions, retention: float) -> None:
    while True:
        await partitions.drop_expired(retention)
        await asyncio.sleep(_PURGE_SECONDS)


async def beside(url: str, server: PostgresServer, rows: int) -> None:
    """Print the time of posts, and the server's processor time, beside each kind of removal."""
    async with open_postgres_outbox(url, **_LIMITS, recorder=NullRecorder()) as outbox:
        partitions = PostgresPartitions(outbox.pool, _AT_ONCE)

        async def drop() -> int:
            return await partitions.drop_expired(0)

        async def delete() -> int:
            return await outbox.repairs.purge(older_than_seconds=0, actor="bench")

        async def nothing() -> int:
            await asyncio.sleep(5)
            return 0

        for name, removal in (("nothing", nothing), ("a drop", drop), ("a deletion", delete)):
            await asyncio.to_thread(_fill, url, rows)
            if removal is drop:
                await drop()  # closes the partition
            removing = asyncio.create_task(removal())
            spent, began = server.processor_seconds(), time.perf_counter()
            posting = asyncio.create_task(_post(outbox, removing))
            removed = await removing
            seconds, spent = time.perf_counter() - began, server.processor_seconds() - spent
            posts = await posting
            p50, p99 = (statistics.quantiles(posts, n=100)[at] * 1000 for at in (49, 98))
            print(
                f"beside {name}: {removed:,} rows in {seconds:.1f} s; posts p50 {p50:.1f} ms, "
                f"p99 {p99:.1f} ms, worst {max(posts) * 1000:.0f} ms; "
                f"server {spent:.2f} s of processor time",
                flush=True,
            )


def _fill(url: str, rows: int) -> None:
    """Rows that went through some time ago: autovacuum has been there."""
    pass_rows_through(url, rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


async def _post(outbox: PostgresOutbox, removing: asyncio.Task[int]) -> list[float]:
    """The seconds that each post takes, until the removal is done, and of at least 200."""
    posts: list[float] = []
    while not removing.done() or len(posts) < _LEAST_POSTS:
        began = time.perf_counter()
        await outbox.intake.append(event())
        posts.append(time.perf_counter() - began)
        await asyncio.sleep(_POST_SECONDS)
    return posts


def main() -> None:
    parser = argparse.ArgumentParser(description="Growth of an outbox on PostgreSQL.")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--retention", type=float, default=120.0)
    parser.add_argument("--rows", type=int, default=300_000, help="removed beside posts")
    options = parser.parse_args()
    with running_postgres(durable=True) as server:
        if server is None:
            sys.exit("there is no PostgreSQL on this machine")
        for name in ("beside", "growth"):
            with server.database(name) as url:
                migrate(url)
                if name == "beside":
                    uvloop.run(beside(url, server, options.rows))
                else:
                    uvloop.run(go_through(url, options.events, options.retention))


if __name__ == "__main__":
    main()
