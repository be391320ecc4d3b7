from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import TooManyPendingError
from service.outbox.fair_share import FairShare
from service.outbox.limits import Held, Limits
from service.outbox.postgres.counts import Snapshot
from service.outbox.postgres.quota import PostgresQuota


class Counts:
    """What the database holds; `meanwhile` is done while a read runs, and is seen by it."""

    def __init__(self, stored: int) -> None:
        self.stored = stored
        self.total = (0, 0)
        self.snapshot = Snapshot.parse("100:100:")
        self.heavy: set[str] = set()
        self.meanwhile: list[Callable[[], None]] = []

    def of(self, owner: str) -> Held:
        return self.total if owner == "u-1" else (0, 0)

    async def read(self, within_seconds: float) -> Snapshot:
        assert within_seconds > 0
        await asyncio.sleep(0)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.total = (self.stored, 10 * self.stored)
        return self.snapshot


def quota_of(counts: Any, limits: Limits) -> PostgresQuota:
    nothing: Any = None
    return PostgresQuota(nothing, counts, nothing, limits, FairShare(heavy_rows=3))


async def test_an_event_that_is_stored_during_a_read_takes_no_second_place() -> None:
    counts = Counts(0)
    quota = quota_of(counts, Limits(1000, 3))
    for _ in range(2):
        await quota.admit("u-1", 1, 10)

    def one_is_stored() -> None:
        counts.stored += 1
        quota.entered("u-1", (1, 10), (1, 10))

    counts.meanwhile = [one_is_stored, one_is_stored]
    await quota._read()
    await quota.admit("u-1", 1, 10)
    with pytest.raises(TooManyPendingError):
        await quota.admit("u-1", 1, 10)


@pytest.mark.parametrize(
    ("snapshot", "shown"),
    [("8:8:", 1), ("7:7:", 0), ("6:9:6,7", 0), ("6:9:6,8", 1)],
)
async def test_an_event_that_a_read_shows_is_counted_once(snapshot: str, shown: int) -> None:
    """Transaction 7 stores it while the read runs; the read may show it or not."""
    counts = Counts(5)
    counts.snapshot = Snapshot.parse(snapshot)
    quota = quota_of(counts, Limits(1000, 1000))
    await quota.admit("u-1", 1, 10)

    def one_is_stored() -> None:
        counts.stored += shown
        quota.entered("u-1", (1, 10), (1, 10), 7)

    counts.meanwhile = [one_is_stored]
    await quota._read()
    assert quota.pending == 6


async def test_an_event_is_pending_once_it_is_stored() -> None:
    quota = quota_of(Counts(0), Limits(1000, 1000))
    await quota.admit("u-1", 1, 10)
    assert quota.pending == 0
    quota.entered("u-1", (1, 10), (1, 10), 7)
    assert quota.pending == 1


async def test_a_full_owner_is_refused() -> None:
    quota = quota_of(Counts(4), Limits(1000, 4))
    await quota._read()
    with pytest.raises(TooManyPendingError):
        await quota.admit("u-1", 1, 10)


async def test_bytes_that_enter_during_a_read_are_counted_once() -> None:
    counts = Counts(0)
    quota = quota_of(counts, Limits(1000, 1000, max_bytes_per_owner=30))
    await quota.admit("u-1", 1, 10)

    def it_is_stored() -> None:
        counts.stored += 1
        quota.entered("u-1", (1, 10), (1, 10))

    counts.meanwhile = [it_is_stored]
    await quota._read()
    await quota.admit("u-1", 1, 20)
    with pytest.raises(TooManyPendingError, match="limit in bytes"):
        await quota.admit("u-1", 1, 1)


async def test_others_are_express_from_the_event_on_that_makes_an_owner_heavy() -> None:
    quota = quota_of(Counts(0), Limits(1000, 1000))
    seen = []
    for _ in range(4):
        await quota.admit("u-1", 1, 10)
        seen.append((quota.is_express("u-2"), quota.is_express("u-1")))
    assert seen == [(False, False), (False, False), (True, False), (True, False)]


async def test_nobody_is_express_while_a_heavy_owner_has_half_of_the_queue_or_less() -> None:
    counts = Counts(3)
    quota = quota_of(counts, Limits(1000, 1000))
    counts.heavy = {"u-1"}
    await quota._read()
    assert quota.is_express("u-2")
    for number in range(2, 5):
        await quota.admit(f"u-{number}", 1, 10)
    assert not quota.is_express("u-5")
