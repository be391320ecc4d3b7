"""Real neighbours for the integration tests: an S3 API over HTTP, and ways for it to misbehave.

And parts of ours at work: an SQLite outbox, a relay from one to the fake Inngest, an HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import boto3
import pytest
from botocore.loaders import create_loader

from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from inngest_outbox.documents import bucket as documents_bucket
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.outbox.postgres.database import pool as postgres_pool
from inngest_outbox.outbox.sqlite import store as sqlite_store
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.confirmed_delivery import SIGNING_KEY
from tests.support.delivery import QUICK, Delivery, delivering
from tests.support.node_packages import with_packages
from tests.support.postgres_server import PostgresServer
from tests.support.s3_server import running_s3
from tests.support.storage import PATIENCE_SECONDS, PATIENT_POOL, PATIENT_WRITER

REGION = "eu-west-1"
NODE_PACKAGES = (
    "better-auth@1.7.25",
    "next-auth@4.24.15",
    "@auth/core@0.41.3",
    "oidc-provider@9.13.3",
    "pg@8.23.1",
    "drizzle-orm@0.45.4",
)


@pytest.fixture(autouse=True)
def patient_stores(monkeypatch):
    """A busy store is no lost one, also where a test or a command opens an outbox itself."""
    monkeypatch.setattr(sqlite_store, "WriterTimings", lambda: PATIENT_WRITER)
    monkeypatch.setattr(postgres_pool, "PoolTimings", lambda: PATIENT_POOL)


@pytest.fixture(scope="session")
def s3_url():
    """The address of an S3 API that runs for the whole session."""
    with running_s3() as url:
        yield url


@pytest.fixture(scope="session")
def boto_loader():
    """Reads boto's description of S3 once: that takes a client longer than all else."""
    return create_loader()


@pytest.fixture
def s3_environment(s3_url, boto_loader, monkeypatch):
    """The environment that boto reads, pointing at that S3 API."""
    from aiobotocore import session as boto_session  # most tests do without

    def loaded(*given, **options):
        made = get_session(*given, **options)
        made.register_component("data_loader", boto_loader)
        return made

    get_session = boto_session.get_session
    monkeypatch.setattr(boto_session, "get_session", loaded)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    # A machine that stalls is no S3 that can't be reached.
    monkeypatch.setitem(documents_bucket._CLIENT, "connect_timeout", PATIENCE_SECONDS)
    monkeypatch.setattr(documents_bucket, "_OPEN_SECONDS", PATIENCE_SECONDS)
    return monkeypatch


@pytest.fixture
def s3(s3_environment):
    """A plain synchronous client, as an independent second opinion."""
    client = boto3.client("s3", region_name=REGION)
    yield client
    client.close()


@pytest.fixture
def bucket_name(s3):
    """The name of a new, empty bucket."""
    name = f"documents-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


@pytest.fixture
async def bucket(bucket_name):
    """The service's client for that bucket, open."""
    async with Bucket(bucket_name, REGION, ask_seconds=PATIENCE_SECONDS) as opened:
        yield opened


@pytest.fixture
async def misbehaving():
    """Start a server that reads a request's head, answers fixed bytes, and closes or hangs.

    Of several answers each request gets the next one, and all after them the last.
    """
    servers = []

    async def start(*answers, close):
        turns = [*answers]

        async def serve(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while not writer.is_closing():
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(turns.pop(0) if len(turns) > 1 else turns[0])
                    await writer.drain()
                    if close:
                        break
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="session")
def node_packages(tmp_path_factory):
    """A folder with the real packages of npm; skipped where there is no Node or registry.

    Node finds packages from where a script lies, so the scripts of ./node are copied there.
    """
    folder = with_packages(tmp_path_factory.mktemp("node"), *NODE_PACKAGES)
    shutil.copytree(Path(__file__).parent / "node", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
async def inngest() -> AsyncIterator[FakeInngest]:
    """One that answers questions under the signing key of `self_hosted`."""
    async with FakeInngest(options=FakeOptions(signing_key=SIGNING_KEY)) as api:
        yield api


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an SQLite outbox of the test is."""
    return tmp_path / "outbox.db"


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[str]:
    """An empty database to move to."""
    with postgres.database("moved") as url:
        yield url


@pytest.fixture
async def live(path: Path) -> AsyncIterator[SqliteOutbox]:
    """An outbox in that file, open while commands run."""
    given = {"max_pending": 9999, "max_pending_per_user": 9999, "timings": PATIENT_WRITER}
    async with open_sqlite_outbox(path, **given) as opened:
        yield opened


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[SqliteOutbox]:
    given = {"max_pending": 1000, "max_pending_per_user": 100, "timings": PATIENT_WRITER}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **given) as opened:
        yield opened


@pytest.fixture
async def delivery(tmp_path: Path, inngest_api: FakeInngest) -> AsyncIterator[Delivery]:
    async with delivering(tmp_path / "outbox.db", inngest_api) as made:
        yield made


@pytest.fixture
async def quick_delivery(tmp_path: Path, inngest_api: FakeInngest) -> AsyncIterator[Delivery]:
    """A delivery with delays of tens of milliseconds where the real ones are seconds."""
    async with delivering(tmp_path / "outbox.db", inngest_api, policies=QUICK) as made:
        yield made


@pytest.fixture
async def hasty_delivery(tmp_path: Path, inngest_api: FakeInngest) -> AsyncIterator[Delivery]:
    """A quick one that gives up a send after half a second, as a busy machine may make it do."""
    path = tmp_path / "outbox.db"
    async with delivering(path, inngest_api, policies=QUICK, send_timeout_seconds=0.5) as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
