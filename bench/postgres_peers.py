"""What PostgreSQL queues of others do with the same events, run by a Python that has them.

`python postgres_peers.py faststream|procrastinate in|out URL COUNT CONCURRENCY`: one durable
transaction a post on the way in, as a request needs it; their own batching on the way out. Prints
the seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time

PAYLOAD = {"pad": "x" * 300}


async def faststream(what: str, url: str, count: int, concurrency: int) -> float:
    from faststream_outbox import OutboxBroker, make_outbox_table  # noqa: PLC0415
    from sqlalchemy import MetaData  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine  # noqa: PLC0415

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
    import procrastinate as library  # noqa: PLC0415

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


async def _concurrently(post, count: int, concurrency: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await post()

    await asyncio.gather(*(work() for _ in range(concurrency)))


if __name__ == "__main__":
    run = {"faststream": faststream, "procrastinate": procrastinate}[sys.argv[1]]
    print(asyncio.run(run(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
