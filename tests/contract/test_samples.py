"""The outbox's history: a sample for each minute, kept once and for a week."""

from __future__ import annotations

import asyncio

from service.console.operations.sampler import History
from service.console.operations.views import Movement, stats_view
from service.outbox.figures import KEPT_MS, MINUTE_MS, Sample
from tests.support.storage import Outbox, Storage

NOON = 1_795_564_800_000


def sample(at_ms: int, waiting: int = 1) -> Sample:
    return Sample(at_ms, waiting, 2, 3.5, 4.25, "backing_off", "503 <busy>")


async def test_samples_survive_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.samples.add(sample(NOON))
    async with storage.open() as outbox:
        assert await outbox.samples.between(NOON, NOON) == [sample(NOON)]


async def test_of_a_minute_the_first_sample_counts(outbox: Outbox) -> None:
    await asyncio.gather(*(outbox.samples.add(sample(NOON, 7)) for _ in range(4)))
    await outbox.samples.add(sample(NOON, 9))
    assert await outbox.samples.between(0, NOON) == [sample(NOON, 7)]


async def test_samples_are_read_by_their_time_oldest_first(outbox: Outbox) -> None:
    for minute in (3, 1, 2, 4):
        await outbox.samples.add(sample(NOON + minute * MINUTE_MS))
    found = await outbox.samples.between(NOON + 2 * MINUTE_MS, NOON + 3 * MINUTE_MS)
    assert [one.at_ms for one in found] == [NOON + 2 * MINUTE_MS, NOON + 3 * MINUTE_MS]


async def test_samples_of_more_than_a_week_are_dropped(outbox: Outbox) -> None:
    for at_ms in (NOON, NOON + MINUTE_MS, NOON + MINUTE_MS + KEPT_MS):
        await outbox.samples.add(sample(at_ms))
    found = await outbox.samples.between(0, NOON + 2 * KEPT_MS)
    assert [one.at_ms for one in found] == [NOON + MINUTE_MS, NOON + MINUTE_MS + KEPT_MS]


async def test_what_is_seen_is_kept_minute_by_minute(outbox: Outbox) -> None:
    view = stats_view(await outbox.inspector.stats(), serving=True)
    history = History(outbox.samples)
    for seconds in (0, 10, 50, 70, 200):
        await history.remember(NOON + seconds * 1000, Movement(view, 1.0, 2.0, 0))
    kept = await outbox.samples.between(0, NOON + 9 * MINUTE_MS)
    assert [one.at_ms for one in kept] == [NOON, NOON + MINUTE_MS]
    assert (kept[0].accepted_rate, kept[0].delivered_rate) == (1.0, 2.0)
