from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import TooManyPendingError
from service.outbox.postgres.quota import PostgresQuota


class Counts:
    """What the database holds; `meanwhile` is done while a read runs, and is seen by it."""

    def __init__(self, stored: int) -> None:
        self.stored = stored
        self.total = 0
        self.meanwhile: list[Callable[[], None]] = []

    def of(self, owner: str) -> int:
        assert owner == "u-1"
        return self.total

    async def read(self, within_seconds: float) -> None:
        assert within_seconds > 0
        await asyncio.sleep(0)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.total = self.stored


def quota_of(counts: Any, limit: int) -> PostgresQuota:
    nothing: Any = None
    return PostgresQuota(nothing, counts, nothing, 1000, limit)


async def test_an_event_that_is_stored_during_a_read_takes_no_second_place() -> None:
    counts = Counts(0)
    quota = quota_of(counts, 3)
    for _ in range(2):
        await quota.admit("u-1")

    def one_is_stored() -> None:
        counts.stored += 1
        quota.entered("u-1", stored=True)

    counts.meanwhile = [one_is_stored, one_is_stored]
    await quota._read()
    await quota.admit("u-1")
    assert quota.pending == 3


async def test_a_full_owner_is_refused() -> None:
    quota = quota_of(Counts(4), 4)
    await quota._read()
    with pytest.raises(TooManyPendingError):
        await quota.admit("u-1")
