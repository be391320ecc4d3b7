"""The PostgreSQL store over connections that break, swallow or hear nothing, and on a standby."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Settlement
from service.outbox.postgres.timings import PoolTimings
from tests.support.postgres_server import PostgresServer
from tests.support.posting import Posting, can_append, fails_soon, stored
from tests.support.storage import (
    PostgresStorage,
    append_all,
    ask,
    claim,
    event,
    eventually,
    ids,
)
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(postgres.socket) as passing:
        yield passing


def through(proxy: TcpProxy) -> PostgresStorage:
    return PostgresStorage(f"postgresql://outbox@127.0.0.1:{proxy.port}/outbox")


async def test_broken_connections_are_not_noticed_by_posts(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        posting = Posting(outbox)
        async with posting.under_way():
            for _ in range(5):
                await posting.more(20)
                with psycopg.connect(postgres.url(), autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'outbox'"
                    )
            await posting.more(20)
        found = await stored(outbox)
        assert posting.failed == 0
        assert set(posting.accepted) <= set(found)
        assert len(found) == len(set(found))


async def test_a_black_hole_fails_posts_soon_and_is_left_when_it_heals(
    postgres_url: str, proxy: TcpProxy
) -> None:
    async with through(proxy).open(timings=PoolTimings()) as outbox:
        await append_all(outbox, 3)
        proxy.swallow()
        await asyncio.gather(*(fails_soon(outbox) for _ in range(20)))
        await fails_soon(outbox)
        proxy.heal()

        async def back() -> bool:
            return await can_append(outbox)

        await eventually(back, within_seconds=30)


async def test_a_claim_whose_answer_was_lost_comes_back_long_before_its_lease(
    postgres_url: str, proxy: TcpProxy
) -> None:
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await append_all(outbox, 1)
        await claim(outbox)
        events = await append_all(other, 2)
        proxy.swallow_answers()
        lost = asyncio.create_task(outbox.queue.claim(ask(lease_seconds=600)))

        async def claimed() -> bool:
            return (await other.inspector.stats()).delivering == 3

        await eventually(claimed)
        proxy.cut()
        await asyncio.gather(lost, return_exceptions=True)

        async def comes_back() -> list[str]:
            try:
                return ids(await outbox.queue.claim(ask()))
            except OutboxUnavailableError:
                return []

        assert await eventually(comes_back) == [each.id for each in events]


async def test_a_standby_that_answers_takes_no_events_until_it_is_primary(
    postgres: PostgresServer, postgres_url: str
) -> None:
    def set_read_only(value: str) -> None:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE outbox SET default_transaction_read_only = {value}")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'outbox'"
            )

    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 1)
        set_read_only("on")
        try:
            await fails_soon(outbox)
        finally:
            set_read_only("off")

        async def back() -> bool:
            return await can_append(outbox)

        await eventually(back)


async def test_without_notifications_rows_are_found_by_a_short_poll(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with (
        PostgresStorage(postgres_url).open() as deaf,
        PostgresStorage(postgres_url).open() as other,
    ):
        await deaf._supervisor.stop("outbox-listen")
        deaf.wakeup.notify_ok = False
        waiting = asyncio.create_task(claim(deaf))
        [sent] = await append_all(other, 1)
        assert ids(await waiting) == [sent.id]


async def test_the_listening_connection_is_tested_and_replaced(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:

        async def hears() -> bool:
            return outbox.notify_ok

        await eventually(hears)
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query = 'LISTEN outbox'"
            )

        async def deaf() -> bool:
            return not outbox.notify_ok

        await eventually(deaf)
        await eventually(hears)


async def test_a_closed_outbox_takes_nothing(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        pass
    with pytest.raises(OutboxUnavailableError):
        await outbox.intake.append(event())
    with pytest.raises(OutboxUnavailableError):
        await outbox.inspector.stats()


@pytest.mark.parametrize("part", [2, 1])
async def test_a_settlement_whose_answer_was_lost_is_no_lost_lease(
    postgres_url: str, proxy: TcpProxy, part: int
) -> None:
    """Also one of a part of the batch: its claim is still there when it is repeated."""
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await append_all(outbox, 2)
        batch = await claim(outbox)
        settlement = Settlement(batch.claim, delivered=[one.seq for one in batch.entries[:part]])
        proxy.swallow_answers()
        settling = asyncio.create_task(outbox.queue.settle(settlement))
        await eventually(other.inspector.stats, lambda stats: stats.delivered == part)
        proxy.cut()
        assert await settling == 0
