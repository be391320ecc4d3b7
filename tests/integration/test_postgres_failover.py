"""What becomes of acknowledged events when a PostgreSQL server fails under load (make soak)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.schema import migrate
from tests.support.postgres_pair import PostgresPair, postgres_pair
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.posting import Posting, can_append, fails_soon, stored
from tests.support.storage import PostgresStorage, append_all, ask, claim, deliver, eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with postgres_pair() as both:
        with psycopg.connect(both.primary.url(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE outbox")
        migrate(both.url("outbox"))
        yield both


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with needed_postgres(durable=True) as made:
        yield made


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    with server.database("outbox") as made:
        migrate(made)
        yield made


@pytest.mark.parametrize("synchronous", [True, False])
async def test_a_promoted_standby_has_what_it_was_waited_for(
    pair: PostgresPair, *, synchronous: bool
) -> None:
    """Without waiting, the last answers before the failure may be of events that only it had."""
    pair.wait_for_the_standby(synchronous=synchronous)
    async with PostgresStorage(pair.url("outbox")).open(max_pending=10**6) as outbox:
        posting = Posting(outbox)
        async with posting.under_way():
            await posting.more(2000)
            await asyncio.to_thread(pair.fail_over)
            if synchronous:
                pair.standby.set("synchronous_standby_names", "")
            await posting.more(500)
        found = await stored(outbox)
    lost = set(posting.accepted) - set(found)
    kind = "synchronous" if synchronous else "asynchronous"
    sys.stderr.write(
        f"\n{kind} standby promoted: {len(posting.accepted)} acknowledged, {len(lost)} lost\n"
    )
    assert len(found) == len(set(found))
    assert not (synchronous and lost)


async def test_backends_that_are_terminated_each_second_lose_nothing(url: str) -> None:
    async with PostgresStorage(url).open(max_pending=10**6, max_pending_per_user=10**6) as outbox:
        posting = Posting(outbox)
        delivered: list[str] = []

        async def relay() -> None:
            while True:
                try:
                    batch = await outbox.queue.claim(ask(500))
                    await deliver(outbox, batch)
                    delivered.extend(entry.event_id for entry in batch.entries)
                except OutboxUnavailableError:
                    await asyncio.sleep(0.05)

        relaying = asyncio.create_task(relay())
        async with posting.under_way():
            for _ in range(30):
                await asyncio.sleep(1)
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'outbox'"
                    )
        await eventually(
            outbox.inspector.stats,
            lambda stats: stats.pending + stats.delivering == 0,
            within_seconds=60,
        )
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        found = await stored(outbox)
        stats = await outbox.inspector.stats()
    assert set(posting.accepted) <= set(found)
    assert len(found) == len(set(found)) == stats.delivered


async def test_no_connection_left_is_told_and_passes(server: PostgresServer, url: str) -> None:
    async with PostgresStorage(url).open() as outbox:
        await append_all(outbox, 1)
        others = [psycopg.connect(server.url(), autocommit=True)]
        others += _all_connections(server)
        others[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'outbox'"
        )
        others += _all_connections(server)
        await fails_soon(outbox)

        async def failure() -> str | None:
            return outbox.failure

        await eventually(
            failure, lambda said: said == "The outbox's database has no connection left."
        )
        for other in others:
            other.close()

        async def back() -> bool:
            return await can_append(outbox)

        await eventually(back)


def _all_connections(server: PostgresServer) -> list[psycopg.Connection]:
    """Every connection that the server still gives."""
    taken = []
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(server.url()))
    return taken


async def test_timeouts_of_the_server_leave_the_outbox_working(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
            connection.execute(f"ALTER DATABASE outbox SET {name} = '250ms'")
    async with PostgresStorage(url).open() as outbox:
        await append_all(outbox, 20)
        assert await deliver(outbox, await claim(outbox)) == 0
        assert (await outbox.inspector.stats()).delivered == 20


async def test_a_changed_password_is_named_and_the_right_one_passes(
    server: PostgresServer, url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("CREATE ROLE runner LOGIN SUPERUSER PASSWORD 'first'")
        (server.folder / "data/pg_hba.conf").write_text(
            "local all outbox trust\nlocal all all scram-sha-256\n"
        )
        owner.execute("SELECT pg_reload_conf()")
        async with PostgresStorage(url.replace("outbox@", "runner:first@")).open() as outbox:
            await append_all(outbox, 1)
            owner.execute("ALTER ROLE runner PASSWORD 'second'")
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'outbox'"
            )
            await fails_soon(outbox)

            async def failure() -> str | None:
                return outbox.failure

            await eventually(
                failure, lambda said: said == "The outbox's database refuses this password."
            )
            owner.execute("ALTER ROLE runner PASSWORD 'first'")

            async def back() -> bool:
                return await can_append(outbox)

            await eventually(back)


async def test_revoked_rights_are_named(server: PostgresServer, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("CREATE ROLE runner LOGIN")
        owner.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO runner")
        owner.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO runner")
        async with PostgresStorage(url.replace("outbox@", "runner@")).open() as outbox:
            await append_all(outbox, 1)
            owner.execute("REVOKE INSERT ON outbox FROM runner")
            await fails_soon(outbox)
            assert outbox.failure == "The outbox's database denies this user a right."
            owner.execute("GRANT INSERT ON outbox TO runner")

            async def back() -> bool:
                return await can_append(outbox)

            await eventually(back)
        owner.execute("DROP OWNED BY runner; DROP ROLE runner")
