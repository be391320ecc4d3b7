from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest

from inngest_outbox.config.outbox_url import sqlite_url
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.schema import migrate
from tests.support.judges import Judge
from tests.support.postgres_rows import EMPTY_OUTBOX, new_outbox
from tests.support.postgres_server import PostgresServer, needed_postgres, share_cluster

# Tests start hundreds of processes: they share the modules that one has compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Far from UTC, a time that is read or shown in the machine's zone by mistake is wrong.
os.environ["TZ"] = "Asia/Kolkata"
time.tzset()

# A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So does all below `nohup` a hangup. What handles one leaves it to the processes that it starts.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# What is collected lives as long as the process: it is not looked through again and again.
gc.disable()

# Machines are noisy: no example fails for being slow. At home a tenth of the examples is enough;
# CI, and a trial of mutants, say themselves how many there are.
AT_HOME = hypothesis.settings.get_current_profile_name() == "default"
hypothesis.settings.register_profile(
    "outbox",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=10 if AT_HOME else hypothesis.settings().max_examples,
)
hypothesis.settings.load_profile("outbox")


def pytest_configure() -> None:
    share_cluster()
    Judge.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        is_unit = "unit" in item.path.parts  # of parts by themselves, which need not come to an end
        Judge.judge(looks_away=is_unit or item.get_closest_marker("faulty") is not None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that waits longest begins first, and ends beside the others."""
    items.sort(key=lambda item: item.path.name != "test_real_views.py")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder for Unix sockets, whose paths have about a hundred characters at most."""
    with tempfile.TemporaryDirectory(prefix="o-", dir="/tmp") as folder:
        yield Path(folder)


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
    with new_outbox(postgres, "outbox") as url:
        yield url


@pytest.fixture(scope="session")
def postgres_session(postgres_outbox_url: str) -> Iterator[psycopg.Connection]:
    """A session for emptying that outbox: the first words of a new one cost ten times as much."""
    with psycopg.connect(postgres_outbox_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def postgres_url(postgres_outbox_url: str, postgres_session: psycopg.Connection) -> str:
    """An empty outbox; emptying one is much faster than making one."""
    postgres_session.execute(EMPTY_OUTBOX)
    return postgres_outbox_url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
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
