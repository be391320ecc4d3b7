"""A pgbouncer in transaction mode in front of a PostgreSQL server of the tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator

import psycopg

from tests.support.neighbours import lacks
from tests.support.postgres_server import PostgresServer

START_SECONDS = 180.0
_PORT = 6432
_SETTINGS = """
[databases]
* = host={folder} port=5432 user=outbox
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
server_idle_timeout = 600
max_prepared_statements = 200
"""


@contextlib.contextmanager
def pgbouncer(server: PostgresServer, database: str, *, connections: int) -> Iterator[str]:
    """The address of `database` behind it; skips where there is no pgbouncer."""
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if binary is None:
        lacks("pgbouncer")
    settings = server.folder / "pgbouncer.ini"
    given = {"folder": server.folder, "port": _PORT, "connections": connections}
    settings.write_text(_SETTINGS.format(**given))
    settings.chmod(0o644)
    command = [*server.as_user, binary, "--quiet", str(settings)]
    process = subprocess.Popen(
        command, cwd=server.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"postgresql://outbox@/{database}?port={_PORT}&host={server.folder}"
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url).close()
            return
        assert time.monotonic() < deadline, "pgbouncer does not answer"
        assert process.poll() is None, "pgbouncer ended"
        time.sleep(0.02)
