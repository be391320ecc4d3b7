"""Faults of PostgreSQL that take minutes: failover, full disks, refusals (make soak)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Filter
from inngest_outbox.outbox.postgres.database.pool import PoolTimings
from inngest_outbox.outbox.schema import migrate
from tests.support.disks import fill_disk, small_disk
from tests.support.fleet import Client, client, environment, running
from tests.support.postgres_pair import PostgresPair, postgres_pair
from tests.support.postgres_server import END_OURS, PostgresServer, needed_postgres
from tests.support.posting import Posting, can_append, fails_soon, stored
from tests.support.storage import (
    PATIENCE_SECONDS,
    PostgresStorage,
    append_all,
    claim,
    deliver,
    event,
    eventually,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


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
                await eventually(lambda: posting.failed > 10)
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
            [sys.executable, "-m", "inngest_outbox", command],
            env={**os.environ, **given, "DEV_LOGIN": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert said.returncode == 2
        told = said.stderr.splitlines()[-1]
        assert told.startswith(f"PostgreSQL at {pair.standby.folder}, database outbox")
        assert "takes no writes" in told


RUNNER = "runner:first@"
SMALL_MIB = 64


@pytest.fixture
def guarded() -> Iterator[PostgresServer]:
    """A server that asks every role but its superuser for a password."""
    with needed_postgres(durable=True) as made:
        (made.folder / "data/pg_hba.conf").write_text(
            "local all outbox trust\nlocal all all scram-sha-256\n"
        )
        made.reload()
        yield made


@pytest.fixture
def disk(guarded: PostgresServer) -> Iterator[Path]:
    """A small file system that the server may use."""
    with small_disk(guarded.folder / "small", SMALL_MIB) as folder:
        guarded.own(folder)
        yield folder
        guarded.stop()


class Trial:
    """A service with its database `owner`, a connection of a superuser to it."""

    def __init__(self, url: str, owner: psycopg.Connection, poster: Client, log: list[str]) -> None:
        self.owner = owner
        self.poster = poster
        self._url = url
        self._log = log

    async def accepts(self) -> None:
        async def taken() -> bool:
            return await self.poster.post(self._url) == 200

        await eventually(taken)
        await eventually(self._readiness, lambda found: found[0] == 200)

    async def posts_fail(self) -> None:
        async def refused() -> bool:
            return await self.poster.post(self._url) == 503

        await eventually(refused)

    async def names(self, cause: str) -> None:
        """Wait until /readyz and the log name the cause."""
        found = await eventually(self._readiness, lambda found: cause in str(found[1]))
        assert found[0] == 503
        await eventually(lambda: any("database_" in line and cause in line for line in self._log))

    async def holds_what_was_accepted(self) -> None:
        rows = self.owner.execute("SELECT event_id FROM outbox.events").fetchall()
        assert set(self.poster.accepted) <= {event_id for (event_id,) in rows}

    async def _readiness(self) -> tuple[int, dict[str, object]]:
        return await self.poster.readiness(self._url)


@contextlib.asynccontextmanager
async def serving(url: str, inngest: FakeInngest) -> AsyncIterator[Trial]:
    """A service that runs as a role with the rights of a runner and a password."""
    migrate(url)
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS runner; CREATE ROLE runner LOGIN PASSWORD 'first'")
        owner.execute("GRANT USAGE ON SCHEMA outbox TO runner")
        owner.execute("GRANT ALL ON ALL TABLES IN SCHEMA outbox TO runner")
        owner.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA outbox TO runner")
        settings = environment(url.replace("outbox@", RUNNER), inngest.url)
        async with running("serve", environment=settings) as service, client() as poster:
            await poster.sign_in(service.url)
            trial = Trial(service.url, owner, poster, service.lines)
            await trial.accepts()
            yield trial
            await trial.accepts()
            await trial.holds_what_was_accepted()


async def test_a_full_disk_is_named_and_nothing_accepted_is_lost(
    guarded: PostgresServer, disk: Path, inngest_api: FakeInngest
) -> None:
    with psycopg.connect(guarded.url(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        connection.execute("CREATE DATABASE outbox TABLESPACE small")
    async with serving(guarded.url("outbox"), inngest_api) as trial:
        fill_disk(disk)
        await trial.posts_fail()
        await trial.names("The disk of the outbox's database is full.")
        (disk / "filler").unlink()


NEW_SESSIONS = (
    ("ALTER ROLE runner PASSWORD 'second'", "refuses this password", "PASSWORD 'first'"),
    (
        "ALTER ROLE runner SET default_transaction_read_only = on",
        "takes no writes",
        "RESET default_transaction_read_only",
    ),
)


@pytest.mark.parametrize(("change", "cause", "repair"), NEW_SESSIONS)
async def test_what_new_sessions_meet_is_named(
    guarded: PostgresServer, inngest_api: FakeInngest, change: str, cause: str, repair: str
) -> None:
    with guarded.database("outbox") as url:
        async with serving(url, inngest_api) as trial:
            trial.owner.execute(change.encode())
            trial.owner.execute(END_OURS)
            await trial.names(f"The outbox's database {cause}.")
            trial.owner.execute(f"ALTER ROLE runner {repair}".encode())
            trial.owner.execute(END_OURS)


async def test_a_revoked_right_is_named_before_a_post_comes(
    guarded: PostgresServer, inngest_api: FakeInngest
) -> None:
    with guarded.database("outbox") as url:
        async with serving(url, inngest_api) as trial:
            trial.owner.execute("REVOKE INSERT ON outbox.events FROM runner")
            await trial.names("The outbox's database denies this user a right.")
            trial.owner.execute("GRANT INSERT ON outbox.events TO runner")


async def test_large_posts_that_fill_the_disk_are_refused_for_it(
    guarded: PostgresServer, disk: Path
) -> None:
    with psycopg.connect(guarded.url(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        connection.execute("CREATE DATABASE outbox TABLESPACE small")
    stored = []
    async with PostgresStorage(guarded.url("outbox")).open(timings=PoolTimings()) as outbox:

        async def append_large() -> str | None:
            one = event()
            large = b'{"id":"%s","n":"%s"}' % (one.id.encode(), os.urandom(10**6).hex().encode())
            with contextlib.suppress(OutboxUnavailableError):
                await outbox.intake.append(msgspec.structs.replace(one, payload=large))
                stored.append(one.id)
            return outbox.failure

        full = "The disk of the outbox's database is full."
        await eventually(append_large, lambda failure: failure == full)
        rows = await outbox.inspector.rows(Filter(limit=1000))
        assert {row.id for row in rows} == set(stored)
