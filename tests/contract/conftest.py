from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.storage import Outbox, PostgresStorage, SqliteStorage, Storage


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "sqlite":
        return SqliteStorage(tmp_path / "outbox.db")
    return PostgresStorage(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def outbox(storage: Storage) -> AsyncIterator[Outbox]:
    async with storage.open() as opened:
        yield opened
