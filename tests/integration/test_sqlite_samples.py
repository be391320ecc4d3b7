"""The samples of an SQLite outbox, row by row."""

from __future__ import annotations

import pytest

from service.outbox.sample import KEPT_MS, Sample
from service.outbox.sqlite.samples import SqliteSamples
from tests.support.sqlite_room import Inline, InlineJobs, Room

NOW_MS = KEPT_MS + 1_000_000


def sample(at_ms: int, waiting: int = 1) -> Sample:
    return Sample(at_ms, waiting, 2, 3.5, 4.5, "healthy", "")


@pytest.fixture
def samples() -> SqliteSamples:
    room = Room()
    return SqliteSamples(Inline(room), InlineJobs(room))  # type: ignore[arg-type]


async def test_samples_are_read_by_their_time_oldest_first(samples: SqliteSamples) -> None:
    for at_ms in (30, 10, 20, 40):
        await samples.add(sample(at_ms))
    assert await samples.between(20, 30) == [sample(20), sample(30)]
    assert await samples.between(0, 99) == [sample(at_ms) for at_ms in (10, 20, 30, 40)]


async def test_of_a_minute_the_first_sample_counts(samples: SqliteSamples) -> None:
    await samples.add(sample(10, waiting=5))
    await samples.add(sample(10, waiting=6))
    assert await samples.between(0, 99) == [sample(10, waiting=5)]


async def test_samples_of_more_than_a_week_before_are_dropped(samples: SqliteSamples) -> None:
    for ago in (KEPT_MS + 1, KEPT_MS, 5):
        await samples.add(sample(NOW_MS - ago))
    await samples.add(sample(NOW_MS))
    kept = [sample(NOW_MS - ago) for ago in (KEPT_MS, 5, 0)]
    assert await samples.between(0, NOW_MS) == kept
