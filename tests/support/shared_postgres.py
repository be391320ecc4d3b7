"""One PostgreSQL server for the forks of a trial: each test has a database of its own.

A database is a copy of a migrated one. A fork that is ended leaves its databases, so the trial
removes them: a name ends with the id of the process that made it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.memory_folder import memory_folder
from tests.support.postgres_server import PostgresServer, find_binaries, running_postgres

_FOLDER = "SHARED_POSTGRES"  # the environment variable that names the server's folder
TEMPLATE = "migrated"
_SETTINGS = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "256MB",
}
_LEFT = """
SELECT datname, substring(datname FROM '_([0-9]+)$')::integer FROM pg_database
WHERE datname ~ '_[0-9]+$'
"""
# In a process of its own: forks import what they try.
_MIGRATE = "import sys; from service.outbox.schema import migrate; migrate(sys.argv[1])"
_numbers = itertools.count(1)


class SharedPostgres(PostgresServer):
    """The server, as a fork sees it."""

    @contextlib.contextmanager
    def database(self, name: str, template: str = "template1") -> Iterator[str]:
        """A new database, which the trial removes when this process has ended."""
        made = f"{name}_{next(_numbers)}_{os.getpid()}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            how = "STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
            connection.execute(f'CREATE DATABASE "{made}" TEMPLATE "{template}" {how}')
        yield self.url(made)

    @contextlib.contextmanager
    def outbox(self) -> Iterator[str]:
        """A new empty outbox, some hundredths of a second away."""
        with self.database("outbox", TEMPLATE) as url:
            yield url

    def sweep(self) -> None:
        """Remove the databases of processes that have ended."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for name, process in connection.execute(_LEFT).fetchall():
                if not Path(f"/proc/{process}").exists():
                    connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def shared_postgres() -> SharedPostgres | None:
    """The server of the trial that this process belongs to, if there is one."""
    folder, binaries = os.environ.get(_FOLDER), find_binaries()
    if folder is None or binaries is None:
        return None
    return SharedPostgres(binaries, Path(folder), durable=False)


@contextlib.contextmanager
def sharing_postgres() -> Iterator[None]:
    """A server that this process and its forks find, where there is PostgreSQL."""
    # A copy in memory costs a fifth of one on disk.
    with running_postgres(settings=_SETTINGS, within=memory_folder()) as server:
        if server is not None:
            with server.database(TEMPLATE) as url:
                subprocess.run([sys.executable, "-c", _MIGRATE, url], check=True)
                os.environ[_FOLDER] = str(server.folder)
                try:
                    yield
                finally:
                    del os.environ[_FOLDER]
        else:
            yield
