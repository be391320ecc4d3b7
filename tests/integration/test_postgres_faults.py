"""The PostgreSQL store while its database is away, broken or deaf: nothing accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.migrations import migrate
from service.outbox.outbox import Filter, Settlement
from tests.contract.storage import (
    Outbox,
    PostgresStorage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
    ids,
)
from tests.postgres_server import PostgresServer, needed_postgres
from tests.tcp_proxy import TcpProxy

# An append fails within 2 s; a machine that is busy with other tests gets some more.
FAILS_WITHIN_SECONDS = 4.0


@pytest.fixture(scope="module")
def crashable() -> Iterator[PostgresServer]:
    """A server that syncs, for tests that stop it."""
    with needed_postgres(durable=True) as server:
        yield server


@pytest.fixture
def url(crashable: PostgresServer) -> Iterator[str]:
    with crashable.database("outbox") as made:
        migrate(made)
        yield made


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(postgres.socket) as passing:
        yield passing


def through(proxy: TcpProxy) -> PostgresStorage:
    return PostgresStorage(f"postgresql://outbox@127.0.0.1:{proxy.port}/outbox")


async def can_append(outbox: Outbox) -> bool:
    try:
        await outbox.append(event())
    except OutboxUnavailableError:
        return False
    return True


async def fails_soon(outbox: Outbox) -> None:
    async with asyncio.timeout(FAILS_WITHIN_SECONDS):
        with pytest.raises(OutboxUnavailableError) as error:
            await outbox.append(event())
    assert error.value.retry_after_seconds


class Posting:
    """Appends until it is stopped, and remembers what was acknowledged."""

    def __init__(self, outbox: Outbox, *, workers: int = 8) -> None:
        self.accepted: list[str] = []
        self.failed = 0
        self._outbox = outbox
        self._workers = workers

    @contextlib.asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._post()) for _ in range(self._workers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def more(self, count: int = 50) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.accepted) + count

        async def there() -> bool:
            return len(self.accepted) >= wanted

        await eventually(there)

    async def _post(self) -> None:
        while True:
            try:
                receipt = await self._outbox.append(event())
                self.accepted.append(receipt.event_id)
            except OutboxUnavailableError:
                self.failed += 1
                await asyncio.sleep(0.01)


async def stored(outbox: Outbox) -> list[str]:
    return [row.id for row in await outbox.rows(Filter(limit=1_000_000))]


async def test_posts_fail_soon_while_the_database_is_away_and_pass_when_it_is_back(
    crashable: PostgresServer, url: str
) -> None:
    async with PostgresStorage(url).open() as outbox:
        [first] = await append_all(outbox, 1)
        await asyncio.to_thread(crashable.crash)
        try:
            await fails_soon(outbox)
            assert outbox.failure
            with pytest.raises(OutboxUnavailableError):
                await outbox.find(first.id)
            await asyncio.gather(*(fails_soon(outbox) for _ in range(50)))
        finally:
            await asyncio.to_thread(crashable.start)

        async def back() -> bool:
            return await can_append(outbox)

        await eventually(back)
        assert outbox.failure is None
        assert await outbox.find(first.id)


async def test_an_immediate_restart_under_load_loses_and_doubles_nothing(
    crashable: PostgresServer, url: str
) -> None:
    async with PostgresStorage(url).open() as outbox:
        posting = Posting(outbox)
        async with posting.under_way():
            for _ in range(2):
                await posting.more()
                await asyncio.to_thread(crashable.crash)
                await asyncio.to_thread(crashable.start)
            await posting.more()
        found = await stored(outbox)
        assert set(posting.accepted) <= set(found)
        assert len(found) == len(set(found))


async def test_a_waiting_claim_outlives_a_restart(crashable: PostgresServer, url: str) -> None:
    async with PostgresStorage(url).open() as outbox:

        async def claim_until_given() -> list[str]:
            while True:
                try:
                    return ids(await outbox.claim(ask()))
                except OutboxUnavailableError:
                    await asyncio.sleep(0.05)

        waiting = asyncio.create_task(claim_until_given())
        await asyncio.to_thread(crashable.crash)
        await asyncio.to_thread(crashable.start)

        async def appended() -> bool:
            return await can_append(outbox)

        await eventually(appended)
        async with asyncio.timeout(10):
            assert await waiting


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
    async with through(proxy).open() as outbox:
        await append_all(outbox, 3)
        proxy.swallow()
        await asyncio.gather(*(fails_soon(outbox) for _ in range(20)))
        await fails_soon(outbox)
        proxy.heal()

        async def back() -> bool:
            return await can_append(outbox)

        await eventually(back)


async def test_a_claim_whose_answer_was_lost_comes_back_long_before_its_lease(
    postgres_url: str, proxy: TcpProxy
) -> None:
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await append_all(outbox, 1)
        await claim(outbox)
        events = await append_all(other, 2)
        proxy.swallow_answers()
        lost = asyncio.create_task(outbox.claim(ask(lease_seconds=600)))

        async def claimed() -> bool:
            return (await other.stats()).delivering == 3

        await eventually(claimed)
        proxy.cut()
        await asyncio.gather(lost, return_exceptions=True)

        async def comes_back() -> list[str]:
            try:
                return ids(await outbox.claim(ask()))
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
        deaf._wakeup.notify_ok = False
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


async def test_settling_is_possible_after_the_database_came_back(
    crashable: PostgresServer, url: str
) -> None:
    async with PostgresStorage(url).open() as outbox:
        await append_all(outbox, 2)
        batch = await claim(outbox)
        await asyncio.to_thread(crashable.crash)
        with pytest.raises(OutboxUnavailableError):
            await deliver(outbox, batch)
        await asyncio.to_thread(crashable.start)

        async def settled() -> bool:
            try:
                return await deliver(outbox, batch) == 0
            except OutboxUnavailableError:
                return False

        await eventually(settled)
        seqs = [entry.seq for entry in batch.entries]
        assert await outbox.settle(Settlement(batch.claim, delivered=seqs)) == 2


async def test_a_closed_outbox_takes_nothing(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        pass
    with pytest.raises(OutboxUnavailableError):
        await outbox.append(event())
    with pytest.raises(OutboxUnavailableError):
        await outbox.stats()
