"""A service whose PostgreSQL takes no writes says why in /readyz and in its log (make soak)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from service.dev.fake_inngest.server import FakeInngest
from service.errors import OutboxUnavailableError
from service.outbox.model import Filter
from service.outbox.postgres.database.pool import PoolTimings
from service.outbox.schema import migrate
from tests.support.disks import fill_disk, small_disk
from tests.support.fleet import Client, client, environment, running
from tests.support.postgres_server import PostgresServer, needed_postgres
from tests.support.storage import PostgresStorage, event, eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]

RUNNER = "runner:first@"
END_OURS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'outbox'"
)
SMALL_MIB = 64


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that asks every role but its superuser for a password."""
    with needed_postgres(durable=True) as made:
        (made.folder / "data/pg_hba.conf").write_text(
            "local all outbox trust\nlocal all all scram-sha-256\n"
        )
        made.reload()
        yield made


@pytest.fixture
def disk(server: PostgresServer) -> Iterator[Path]:
    """A small file system that the server may use."""
    with small_disk(server.folder / "small", SMALL_MIB) as folder:
        server.own(folder)
        yield folder
        server.stop()


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

        await eventually(taken, within_seconds=60)
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
    server: PostgresServer, disk: Path, inngest_api: FakeInngest
) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        connection.execute("CREATE DATABASE outbox TABLESPACE small")
    async with serving(server.url("outbox"), inngest_api) as trial:
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
    server: PostgresServer, inngest_api: FakeInngest, change: str, cause: str, repair: str
) -> None:
    with server.database("outbox") as url:
        async with serving(url, inngest_api) as trial:
            trial.owner.execute(change.encode())
            trial.owner.execute(END_OURS)
            await trial.names(f"The outbox's database {cause}.")
            trial.owner.execute(f"ALTER ROLE runner {repair}".encode())
            trial.owner.execute(END_OURS)


async def test_a_revoked_right_is_named_before_a_post_comes(
    server: PostgresServer, inngest_api: FakeInngest
) -> None:
    with server.database("outbox") as url:
        async with serving(url, inngest_api) as trial:
            trial.owner.execute("REVOKE INSERT ON outbox.events FROM runner")
            await trial.names("The outbox's database denies this user a right.")
            trial.owner.execute("GRANT INSERT ON outbox.events TO runner")


async def test_large_posts_that_fill_the_disk_are_refused_for_it(
    server: PostgresServer, disk: Path
) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        connection.execute("CREATE DATABASE outbox TABLESPACE small")
    stored = []
    async with PostgresStorage(server.url("outbox")).open(timings=PoolTimings()) as outbox:

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
