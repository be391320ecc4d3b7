"""What the acceptance tests of a module share: running services, and who asks them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import uuid_utils

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process, environment, running
from tests.support.front_end import FRONT, SECRET
from tests.support.memory_folder import memory_folder
from tests.support.poster import Poster


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder for tests that count answers: posts are refused while a busy disk stalls."""
    with tempfile.TemporaryDirectory(prefix="outbox-", dir=memory_folder()) as folder:
        yield Path(folder)


module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")


@module_fixture
async def inngest() -> AsyncIterator[FakeInngest]:
    async with FakeInngest() as api:
        yield api


@module_fixture
async def development(
    tmp_path_factory: pytest.TempPathFactory, inngest: FakeInngest
) -> AsyncIterator[Process]:
    path = tmp_path_factory.mktemp("development") / "outbox.db"
    settings = environment(
        f"sqlite:///{path}",
        inngest.url,
        NEXTAUTH_SECRET=SECRET,
        OPERATOR_EMAILS="kim@example.com",
        ALLOWED_ORIGINS=FRONT,
        METRICS_TOKEN="a-token-of-the-tests-only",
        LOG_LEVEL="info",
        LOG_FORMAT="json",
    )
    async with running("serve", environment=settings) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def user(development: Process) -> AsyncIterator[Poster]:
    """Nobody yet."""
    one = Poster(development.url)
    yield one
    await one.http.close()


@pytest_asyncio.fixture(loop_scope="module")
async def other(development: Process) -> AsyncIterator[Poster]:
    """Nobody yet, either."""
    one = Poster(development.url)
    yield one
    await one.http.close()


@module_fixture
async def service(
    tmp_path_factory: pytest.TempPathFactory, inngest: FakeInngest
) -> AsyncIterator[Process]:
    """Its sends are not given up, and so not repeated, while the machine is busy."""
    path = tmp_path_factory.mktemp("route") / "outbox.db"
    settings = environment(f"sqlite:///{path}", inngest.url, OUTBOX_SEND_TIMEOUT="30s")
    async with running("serve", environment=settings) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def poster(service: Process) -> AsyncIterator[Poster]:
    one = Poster(service.url)
    await one.sign_in(str(uuid_utils.uuid7()))
    yield one
    await one.http.close()
