"""Partitions are dropped beside posts, in spite of readers, kills and a failover (make soak)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from service.outbox.postgres.recount import RECOUNT
from tests.support.arrivals import noted_arrivals
from tests.support.beside import beside
from tests.support.fleet import ROOT, Client, client, environment, running
from tests.support.front_processes import children_of
from tests.support.postgres_pair import PostgresPair, postgres_pair
from tests.support.storage import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

POSTERS = 4
READER_SECONDS = 6.0
KILLS = 5
OLDEST = "SELECT min(number) FROM outbox_partitions WHERE opened_at IS NOT NULL"


@contextlib.asynccontextmanager
async def dropping(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that drops, until the block ends; it may be killed before."""
    command = (sys.executable, "-m", "tests.support.partition_dropper", url)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with postgres_pair() as both:
        yield both


async def test_drops_resume_after_readers_kills_and_a_failover(pair: PostgresPair) -> None:
    url = pair.url("outbox")
    pair.wait_for_the_standby(synchronous=True)
    async with noted_arrivals() as arrivals, client() as poster:
        settings = environment(
            url,
            arrivals.url,
            OUTBOX_CONFIRM="off",
            OUTBOX_MAX_PENDING_PER_USER="1000000",
            WEB_CONCURRENCY="2",
        )
        async with running("serve", environment=settings) as service:
            await poster.sign_in(service.url)
            async with beside(*(post(poster, service.url) for _ in range(POSTERS))):
                async with dropping(url):
                    await told("with nothing in between", resume(url, poster))
                    await told("after a reader", beside_a_reader(url, poster))
                for number in range(KILLS):
                    async with dropping(url):
                        await asyncio.sleep(1.0 + 0.1 * number)  # then it is killed
                async with dropping(url):
                    await told("after kills of who drops", resume(url, poster))
                    for child in children_of(service):
                        child.kill()
                    await told("after a kill of the service's processes", resume(url, poster))
                    await asyncio.to_thread(pair.primary.kill)
                    await asyncio.to_thread(pair.primary.start)
                    await told("after a kill of the server", resume(url, poster))
                    await asyncio.to_thread(pair.fail_over)
                    pair.standby.set("synchronous_standby_names", "")
                    await told("after a failover", resume(url, poster))

            async def missing() -> int:
                return len(set(poster.accepted) - set(arrivals.at))

            await eventually(missing, lambda count: count == 0, within_seconds=90)
        counted = await ask(url, RECOUNT)
    print(
        f"{len(poster.accepted)} accepted, {len(poster.refused)} refused, {poster.broken} broken, "
        f"all arrived; {await ask(url, OLDEST)} partitions were dropped"
    )
    assert counted == 0


async def post(poster: Client, url: str) -> None:
    while True:
        await poster.post(url)
        await asyncio.sleep(0.02)


async def resume(url: str, poster: Client) -> None:
    """Wait until two more partitions are gone and more posts were accepted."""
    oldest, accepted = await ask(url, OLDEST), len(poster.accepted)

    async def more() -> bool:
        return await ask(url, OLDEST) >= oldest + 2 and len(poster.accepted) > accepted

    await eventually(more, within_seconds=60)


async def beside_a_reader(url: str, poster: Client) -> None:
    """A transaction that has read the events puts drops off, and no post waits for it."""
    async with await psycopg.AsyncConnection.connect(url) as reader:
        await reader.execute("SELECT count(*) FROM outbox")
        oldest, accepted = await ask(url, OLDEST), len(poster.accepted)
        await asyncio.sleep(READER_SECONDS)
        assert await ask(url, OLDEST) == oldest
        assert len(poster.accepted) > accepted + 10
        assert not poster.refused
        await reader.rollback()
    await resume(url, poster)


async def told(when: str, resumed: Any) -> None:
    began = time.monotonic()
    await resumed
    print(f"two partitions were dropped {when} within {time.monotonic() - began:.1f} s", flush=True)


async def ask(url: str, statement: str) -> int:
    """One number, however long the server is away."""
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                cursor = await connection.execute(statement)  # type: ignore[arg-type]
                [(value,)] = await cursor.fetchall()
                return int(value)
        await asyncio.sleep(0.1)
