from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest

from service.config.outbox_url import sqlite_url
from service.fake_inngest.server import FakeInngest
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer, needed_postgres

EMPTY_OUTBOX = """
DELETE FROM outbox; DELETE FROM outbox_ready; DELETE FROM outbox_claims; DELETE FROM outbox_done;
DELETE FROM outbox_notes; DELETE FROM outbox_settings; DELETE FROM outbox_audit;
DELETE FROM outbox_samples;
DELETE FROM outbox_delivery; INSERT INTO outbox_delivery DEFAULT VALUES;
DELETE FROM outbox_sent; DELETE FROM outbox_changes; DELETE FROM outbox_counts;
UPDATE outbox_meta SET settings_revision = 0, pending = 0, delivered = 0, dead = 0,
    sent = 0, stored_bytes = 0;
"""

# A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are noisy: no example fails for being slow.
hypothesis.settings.register_profile("outbox", deadline=None)
hypothesis.settings.load_profile("outbox")


@pytest.fixture
async def inngest_api() -> AsyncIterator[FakeInngest]:
    async with FakeInngest() as api:
        yield api


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for everything but crashes."""
    with needed_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_outbox_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("outbox") as url:
        migrate(url)
        yield url


@pytest.fixture
def postgres_url(postgres_outbox_url: str) -> str:
    """An empty outbox; emptying one is much faster than making one."""
    with psycopg.connect(postgres_outbox_url, autocommit=True) as connection:
        connection.execute(EMPTY_OUTBOX)
    return postgres_outbox_url


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty outbox in each store."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "outbox.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="module")
def crashable() -> Iterator[PostgresServer]:
    """A server that syncs, for tests that stop it."""
    with needed_postgres(durable=True) as server:
        yield server


@pytest.fixture
def crashable_url(crashable: PostgresServer) -> Iterator[str]:
    """A new outbox on that server."""
    with crashable.database("outbox") as url:
        migrate(url)
        yield url
