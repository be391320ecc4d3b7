"""What becomes of acknowledged events when a PostgreSQL server fails under load (make soak)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from service.outbox.schema import migrate
from tests.support.disks import fill_disk, small_disk
from tests.support.postgres_pair import PostgresPair, postgres_pair
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.posting import Posting, can_append, fails_soon, stored
from tests.support.storage import PostgresStorage, append_all, claim, deliver, eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

# Ends the service's connections.
END_OURS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'outbox'"
)


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with postgres_pair() as both:
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
    """Without waiting, a standby lacks what was answered while it did not stream."""
    pair.wait_for_the_standby(synchronous=synchronous)
    async with PostgresStorage(pair.url("outbox")).open(max_pending=10**6) as outbox:
        posting = Posting(outbox)
        async with posting.under_way():
            await posting.more(2000)
            if not synchronous:
                pair.standby.set("primary_conninfo", "")
                await posting.more(200)
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
    assert bool(lost) is not synchronous


async def test_a_full_disk_of_the_log_stops_the_server_and_loses_nothing(
    server: PostgresServer,
) -> None:
    """Without room for its log PostgreSQL ends; it recovers when there is room."""
    url = server.url("outbox")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE outbox")
    migrate(url)
    for name in ("max_wal_size", "min_wal_size"):
        server.set(name, "32MB")
    server.stop()
    log = server.folder / "data/pg_wal"
    with small_disk(server.folder / "small", 64) as disk:
        shutil.copytree(log, disk / "pg_wal", dirs_exist_ok=True)
        shutil.rmtree(log)
        log.symlink_to(disk / "pg_wal")
        server.own(disk)
        server.start()
        async with PostgresStorage(url).open(max_pending=10**6) as outbox:
            posting = Posting(outbox)
            async with posting.under_way():
                await posting.more(200)
                fill_disk(disk)
                _use_up_the_log(url)
                await eventually(lambda: posting.failed > 10, within_seconds=60)
                assert outbox.failure
                (disk / "filler").unlink()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await posting.more(200)
            found = await stored(outbox)
        server.stop()
    assert set(posting.accepted) <= set(found)
    assert len(found) == len(set(found))


def _use_up_the_log(url: str) -> None:
    """Have the server need a new file of its log."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute("SELECT pg_switch_wal()")


async def test_no_connection_left_is_told_and_passes(server: PostgresServer, url: str) -> None:
    async with PostgresStorage(url).open() as outbox:
        await append_all(outbox, 1)
        others = [psycopg.connect(server.url(), autocommit=True)]
        while others[0].execute(END_OURS).rowcount:
            others += _all_connections(server)
        await fails_soon(outbox)
        await eventually(
            lambda: outbox.failure,
            lambda said: said == "The outbox's database has no connection left.",
        )
        for other in others:
            other.close()
        await eventually(lambda: can_append(outbox))


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


def test_a_service_that_is_started_on_a_standby_names_it_in_its_last_line(
    pair: PostgresPair,
) -> None:
    given = {"OUTBOX_URL": pair.standby.url("outbox"), "INNGEST_DEV": "http://127.0.0.1:9"}
    for command in ("serve", "relay"):
        said = subprocess.run(
            [sys.executable, "-m", "service", command],
            env={**os.environ, **given, "DEV_LOGIN": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert said.returncode == 2
        told = said.stderr.splitlines()[-1]
        assert told.startswith(f"PostgreSQL at {pair.standby.folder}, database outbox")
        assert "takes no writes" in told
