"""PostgreSQL queues of others with the same events, run by a Python that has them.

`python postgres_peers.py faststream|procrastinate|pgq in|out|fill URL COUNT CONCURRENCY`: one
durable transaction a post on the way in, as a request needs it; their own batching on the way out.
`fill` passes events through by large statements that change rows as the library does. Prints the
seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

PAYLOAD = {"pad": "x" * 300}
PAGE = 20_000
PGQ_BATCH = 500
FILL = {
    "faststream": (
        (
            "INSERT INTO peer_outbox (queue, payload) "
            "SELECT 'gone', '\\x00' FROM generate_series(1, %(count)s)"
        ),
        (
            "UPDATE peer_outbox SET acquired_token = gen_random_uuid(), acquired_at = now() "
            "WHERE acquired_token IS NULL"
        ),
        "DELETE FROM peer_outbox",
    ),
    "procrastinate": (
        (
            "INSERT INTO procrastinate_jobs (queue_name, task_name) "
            "SELECT 'default', 'handle' FROM generate_series(1, %(count)s)"
        ),
        "UPDATE procrastinate_jobs SET status = 'doing', attempts = 1 WHERE status = 'todo'",
        "UPDATE procrastinate_jobs SET status = 'succeeded' WHERE status = 'doing'",
    ),
    "pgq": (
        (
            f"SELECT count(pgq.insert_event('events', 'n', '{{}}')) "
            f"FROM generate_series(1, {PGQ_BATCH})"
        ),
        "SELECT pgq.force_tick('events')",
        "SELECT pgq.ticker('events')",
        "SELECT pgq.finish_batch(pgq.next_batch('events', 'bench'))",
    ),
}


async def faststream(what: str, url: str, count: int, concurrency: int) -> float:
    from faststream_outbox import OutboxBroker, make_outbox_table
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    metadata = MetaData()
    table = make_outbox_table(metadata, table_name="peer_outbox")
    host = url.partition("host=")[2]
    database = url.partition("@/")[2].partition("?")[0]
    engine = create_async_engine(
        f"postgresql+asyncpg://outbox@/{database}?host={host}", pool_size=8, max_overflow=0
    )
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    broker = OutboxBroker(engine, outbox_table=table)
    done = asyncio.Event()
    seen = 0

    @broker.subscriber(
        "events",
        max_workers=4,
        fetch_batch_size=500,
        min_fetch_interval=0.001,
        max_fetch_interval=0.1,
        terminal_flush_batch_size=100,
    )
    async def handle(body: dict) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    sessions = async_sessionmaker(engine, expire_on_commit=False)
    started = time.perf_counter()
    if what == "in":

        async def post() -> None:
            async with sessions() as session, session.begin():
                await broker.publish(PAYLOAD, queue="events", session=session)

        await _concurrently(post, count, concurrency)
    else:
        await broker.start()
        await done.wait()
    seconds = time.perf_counter() - started
    if what == "out":
        await broker.stop()
    await engine.dispose()
    return seconds


async def procrastinate(what: str, url: str, count: int, concurrency: int) -> float:
    import procrastinate as library

    connector = library.PsycopgConnector(conninfo=url, min_size=1, max_size=8)
    app = library.App(connector=connector)
    done = asyncio.Event()
    seen = 0

    @app.task(name="handle")
    async def handle(pad: str) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    async with app.open_async():
        if what == "in":
            if not await app.check_connection_async():
                await app.schema_manager.apply_schema_async()
            started = time.perf_counter()
            await _concurrently(lambda: handle.defer_async(**PAYLOAD), count, concurrency)
            return time.perf_counter() - started
        started = time.perf_counter()
        worker = asyncio.create_task(
            app.run_worker_async(
                concurrency=concurrency, install_signal_handlers=False, listen_notify=False
            )
        )
        await done.wait()
        seconds = time.perf_counter() - started
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        return seconds


async def pgq(what: str, url: str, count: int, concurrency: int) -> float:
    import psycopg_pool

    async with psycopg_pool.AsyncConnectionPool(
        url, min_size=8, max_size=8, kwargs={"autocommit": True}
    ) as pool:

        async def run(statement: str, *given: object) -> list[tuple]:
            async with pool.connection() as connection:
                return await (await connection.execute(statement, given)).fetchall()

        if what == "in":
            async with pool.connection() as connection:
                await connection.execute("CREATE EXTENSION IF NOT EXISTS pgq")
            await run("SELECT pgq.create_queue('events')")
            await run("SELECT pgq.set_queue_config('events', 'ticker_max_lag', '50 ms')")
            await run("SELECT pgq.register_consumer('events', 'bench')")
            text = json.dumps(PAYLOAD)
            started = time.perf_counter()
            insert = "SELECT pgq.insert_event('events', 'n', %s)"
            await _concurrently(lambda: run(insert, text), count, concurrency)
            return time.perf_counter() - started
        started, seen = time.perf_counter(), 0
        while seen < count:
            await run("SELECT pgq.ticker('events')")
            [(batch,)] = await run("SELECT pgq.next_batch('events', 'bench')")
            if batch is None:
                await asyncio.sleep(0.01)
                continue
            seen += len(await run("SELECT * FROM pgq.get_batch_events(%s)", batch))
            await run("SELECT pgq.finish_batch(%s)", batch)
        return time.perf_counter() - started


def fill(name: str, url: str, count: int) -> float:
    import psycopg

    page = PGQ_BATCH if name == "pgq" else PAGE
    started = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(0, count, page):
            for statement in FILL[name]:
                given = {"count": page} if "%(count)s" in statement else None
                connection.execute(statement, given)
        connection.execute("ANALYZE")
    return time.perf_counter() - started


async def _concurrently(post, count: int, concurrency: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await post()

    await asyncio.gather(*(work() for _ in range(concurrency)))


def main() -> None:
    name, what, url, count, concurrency = sys.argv[1:]
    if what == "fill":
        print(fill(name, url, int(count)))
        return
    run = {"faststream": faststream, "procrastinate": procrastinate, "pgq": pgq}[name]
    print(asyncio.run(run(what, url, int(count), int(concurrency))))


if __name__ == "__main__":
    main()
