from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.memory_outbox import MemoryStorage
from tests.support.remote_storage import RemoteStorage
from tests.support.storage import Outbox, PostgresStorage, SqliteStorage, Storage


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        remote = pytest.param("remote", marks=pytest.mark.slow)
        stores = ["sqlite", remote, "postgres"]
        if metafunc.definition.get_closest_marker("in_memory_too"):
            stores.append("memory")
        metafunc.parametrize("storage", stores, indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "sqlite":
        return SqliteStorage(tmp_path / "outbox.db")
    if request.param == "remote":
        return RemoteStorage(tmp_path / "outbox.db")
    return PostgresStorage(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def outbox(storage: Storage) -> AsyncIterator[Outbox]:
    async with storage.open() as opened:
        yield opened
