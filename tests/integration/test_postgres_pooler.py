"""How the service reaches PostgreSQL: through pgbouncer, and by certificates of a CA of ours."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from inngest_outbox.errors import OutboxMoveError, OutboxUnavailableError
from inngest_outbox.outbox.model import Dead, Retry, Settlement
from inngest_outbox.outbox.postgres.database.pool import PoolTimings
from inngest_outbox.outbox.schema import migrate
from tests.support.free_port import free_port
from tests.support.moving import move
from tests.support.named_rows import named
from tests.support.neighbours import lacks
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres_rows import empty_outbox
from tests.support.postgres_server import (
    END_OURS,
    START_SECONDS,
    PostgresServer,
    needed_postgres,
)
from tests.support.posting import can_append, fails_soon
from tests.support.storage import (
    PostgresStorage,
    append_all,
    claim,
    deliver,
    event,
    eventually,
    ids,
)

LEFT_BEHIND = """
SELECT current_setting('lock_timeout'), current_setting('search_path'),
       (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '/* APPEND */%'"


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[str]:
    """The address of an outbox behind pgbouncer, which reaches other databases too."""
    with postgres.database("pooled"), pgbouncer(postgres, "pooled", connections=2) as url:
        migrate(url)
        yield url


@pytest.fixture
def pooled(postgres: PostgresServer, pooler: str) -> str:
    empty_outbox(postgres.url("pooled"))
    return pooler


async def test_an_outbox_does_all_behind_a_pooler_and_leaves_nothing_in_a_session(
    pooled: str,
) -> None:
    async with PostgresStorage(pooled).open() as outbox:
        await asyncio.gather(*(outbox.intake.append(event()) for _ in range(200)))
        for _ in range(10):
            await append_all(outbox, 1)
        batch = await claim(outbox)
        one, two, three, *rest = (entry.seq for entry in batch.entries)
        await outbox.queue.settle(
            Settlement(
                batch.claim,
                delivered=[one, *rest],
                retry=[Retry(two, 0, 1, isolated=False)],
                dead=[Dead(three, 1, "rejected", "")],
            )
        )
        await outbox.repairs.replay(await named(outbox.inspector), actor="ada")
        await outbox.scopes.save_scope("user", "u-1", {"a": 1})
        assert await outbox.scopes.load_scope("user", "u-1") == {"a": 1}
        stats = await outbox.inspector.stats()
        assert (stats.pending, stats.delivered) == (210 - 98, 98)
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as client:
            for _ in range(10):
                found = client.execute(LEFT_BEHIND).fetchall()
                assert found == [("0", '"$user", public', 0, 0)]


async def test_a_move_sees_a_service_behind_a_pooler(pooled: str, tmp_path: Path) -> None:
    async with PostgresStorage(pooled).open():
        with pytest.raises(OutboxMoveError, match="source is being served"):
            await move(pooled, f"sqlite:///{tmp_path}/outbox.db")


@pytest.fixture
def preparing(postgres: PostgresServer, pooler: str) -> Iterator[str]:
    with postgres.database("preparing") as direct:
        with psycopg.connect(direct, autocommit=True) as connection:
            connection.execute("ALTER DATABASE preparing SET outbox.prepare = 'on'")
        yield pooler.replace("/pooled?", "/preparing?")


async def test_statements_are_prepared_behind_a_pooler_by_choice(preparing: str) -> None:
    migrate(preparing)
    async with PostgresStorage(preparing).open() as outbox:

        async def prepared() -> int:
            """How many statements the pooler's connections have after one more round."""
            posts = await asyncio.gather(*(append_all(outbox, 1) for _ in range(4)))
            batch = await claim(outbox)
            assert set(ids(batch)) == {post.id for [post] in posts}
            assert await deliver(outbox, batch) == 0
            return await asyncio.to_thread(prepared_by, preparing)

        await eventually(prepared)


def prepared_by(url: str) -> int:
    """The appends that are prepared in both connections of a pooler."""
    with contextlib.ExitStack() as stack:
        found = 0
        for _ in range(2):
            # Each open transaction keeps one of the two.
            client = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
            [(count,)] = client.execute(PREPARED).fetchall()
            found += count
        return found


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
        connection.execute(END_OURS)


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
