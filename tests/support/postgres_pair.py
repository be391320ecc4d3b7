"""A PostgreSQL primary with a streaming standby that can be promoted."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from inngest_outbox.outbox.schema import migrate
from tests.support.neighbours import lacks
from tests.support.postgres_server import PostgresServer, find_binaries

_STANDBY = "standby"


class PostgresPair:
    """Two servers. `url` names both; the client takes the one that takes writes."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer) -> None:
        self.primary = primary
        self.standby = standby

    def url(self, database: str) -> str:
        return (
            f"postgresql://outbox@/{database}?host={self.primary.folder},{self.standby.folder}"
            "&target_session_attrs=read-write"
        )

    def wait_for_the_standby(self, *, synchronous: bool) -> None:
        """Have every commit wait for the standby, or none."""
        self.primary.set("synchronous_standby_names", _STANDBY if synchronous else "")

    def fail_over(self) -> None:
        """Kill the primary as a machine dies, and make the standby the primary."""
        self.primary.kill()
        with psycopg.connect(self.standby.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")


@contextlib.contextmanager
def postgres_pair() -> Iterator[PostgresPair]:
    """A pair whose standby streams, with an empty outbox in the database `outbox`.

    Without PostgreSQL its tests skip at home and fail in CI.
    """
    binaries = find_binaries()
    if binaries is None:
        lacks("PostgreSQL")
    folders = [Path(tempfile.mkdtemp(prefix="outbox-pg-")) for _ in range(2)]
    primary, standby = (PostgresServer(binaries, folder, durable=True) for folder in folders)
    try:
        primary.initialise()
        primary.start()
        _copy(primary, standby)
        standby.start()
        pair = PostgresPair(primary, standby)
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE outbox")
        migrate(pair.url("outbox"))
        yield pair
    finally:
        for server in (primary, standby):
            with contextlib.suppress(OSError, ValueError):
                server.stop()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(primary: PostgresServer, standby: PostgresServer) -> None:
    primary.stop()
    shutil.copytree(primary.folder / "data", standby.folder / "data", copy_function=shutil.copy2)
    standby.own(standby.folder / "data")
    (standby.folder / "data/standby.signal").touch()
    with (standby.folder / "data/postgresql.auto.conf").open("a") as settings:
        settings.write(
            f"primary_conninfo = 'host={primary.folder} user=outbox application_name={_STANDBY}'\n"
        )
    primary.start()
