"""sslmode=verify-full: the service talks to the server that a CA of ours names, and to no other."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres.database.pool import PoolTimings
from service.outbox.schema import migrate
from tests.support.free_port import free_port
from tests.support.neighbours import lacks
from tests.support.postgres_server import START_SECONDS, PostgresServer, needed_postgres
from tests.support.posting import can_append, fails_soon
from tests.support.storage import PostgresStorage, eventually

NOT_TRUSTED = "The certificate of the outbox's database is not trusted."
EXTENSIONS = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_ca(folder: Path) -> Path:
    """A CA in `folder`, with a server's key and certificate; returns the CA's certificate."""
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca")
    openssl(folder, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=db")
    (folder / "extensions").write_text(EXTENSIONS)
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions")
    openssl(folder, "x509", "-req", "-in", "server.csr", "-out", "server.crt", *signing)
    return folder / "ca.crt"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        lacks("openssl")
    return make_ca(tmp_path / "ours")


@pytest.fixture
def others(tmp_path: Path) -> Path:
    return make_ca(tmp_path / "others")


def present(server: PostgresServer, ca: Path) -> None:
    """Have the server present the certificate of this CA to new connections."""
    for name in ("server.key", "server.crt"):
        made = server.folder / "data" / name
        shutil.copy(ca.parent / name, made)
        made.chmod(0o600)
    server.own(server.folder / "data")
    server.set("ssl", "on")
    deadline = time.monotonic() + START_SECONDS
    while not presents(server, ca):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'outbox'"
        )


def presents(server: PostgresServer, ca: Path) -> bool:
    """True once new connections get the certificate of this CA: the server reloads in its time."""
    trusting = {"host": "localhost", "sslmode": "verify-full", "sslrootcert": str(ca)}
    try:
        psycopg.connect(server.url(), **trusting).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def address(ours: Path) -> Iterator[tuple[PostgresServer, str]]:
    """A server over TCP with a certificate of ours, and where its outbox is, without a CA."""
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": str(port)}
    with needed_postgres(settings=settings) as server:
        (server.folder / "data/pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"
        )
        present(server, ours)
        with server.database("outbox"):
            yield server, f"postgresql://outbox@localhost:{port}/outbox?sslmode=verify-full"


async def test_a_server_of_our_ca_is_used_and_of_another_ca_refused(
    address: tuple[PostgresServer, str], ours: Path, others: Path
) -> None:
    server, url = address
    trusting = f"{url}&sslrootcert={ours}"
    with pytest.raises(OutboxUnavailableError, match="certificate verify failed"):
        migrate(f"{url}&sslrootcert={others}")
    with pytest.raises(OutboxUnavailableError, match="does not match host name"):
        migrate(trusting.replace("localhost", "127.0.0.1"))
    migrate(trusting)
    # A post waits for a connection as long as its timings say, so these are a service's own.
    async with PostgresStorage(trusting).open(timings=PoolTimings()) as outbox:
        await eventually(lambda: can_append(outbox))
        await asyncio.to_thread(present, server, others)
        await fails_soon(outbox)
        await eventually(lambda: outbox.failure, lambda said: said == NOT_TRUSTED)
        await asyncio.to_thread(present, server, ours)
        await eventually(lambda: can_append(outbox))
