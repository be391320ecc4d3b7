"""How many rows are in each state, who holds them, and a sample of both for each minute."""

from __future__ import annotations

import asyncio

import msgspec

from inngest_outbox.console.operations.sampler import History
from inngest_outbox.console.operations.views import Movement, stats_view
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.figures import KEPT_MS, MINUTE_MS, OwnerShare, Sample
from inngest_outbox.outbox.model import Filter, Named, Retry, Settlement
from tests.support.calls import aged
from tests.support.rows import one_of_each
from tests.support.storage import Outbox, Storage, append_all, claim, deliver, event


async def test_figures_count_each_state(outbox: Outbox) -> None:
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivering, stats.delivered, stats.dead) == (0, 0, 0, 0)
    assert (stats.oldest_pending_seconds, stats.oldest_due_seconds) == (None, None)
    assert await outbox.inspector.rows(Filter()) == []
    assert await outbox.inspector.audit(10) == []
    await one_of_each(outbox)
    stats = await outbox.inspector.stats()
    counts = (stats.pending, stats.delivering, stats.sent, stats.delivered, stats.dead)
    assert counts == (1, 1, 1, 1, 1)
    assert all(0 <= age < 60 for age in await oldest(outbox))
    assert stats.database_bytes


async def oldest(outbox: Outbox) -> list[float]:
    """How old the oldest row is that is pending, and the oldest one that is due; -1 for none."""
    stats = await outbox.inspector.stats()
    found = (stats.oldest_pending_seconds, stats.oldest_due_seconds)
    return [-1 if age is None else age for age in found]


async def test_the_oldest_row_is_as_old_as_its_acceptance_until_it_is_delivered(
    outbox: Outbox,
) -> None:
    """It is still late while it is sent, and between two tries."""
    await outbox.intake.append(aged(60))
    await append_all(outbox, 2)
    assert all(59 < age < 90 for age in await oldest(outbox))
    batch = await claim(outbox)
    assert all(59 < age < 90 for age in await oldest(outbox))
    again = Retry(batch.entries[0].seq, 5.0, 1, isolated=True, note="HTTP 503")
    await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
    assert all(59 < age < 90 for age in await oldest(outbox))


async def test_a_delayed_row_waits_from_its_time_on(outbox: Outbox) -> None:
    now_ms = event().accepted_at_ms
    for due_at_ms, least, most in ((now_ms + 3_600_000, -1, -1), (now_ms - 30_000, 29, 60)):
        await outbox.intake.append(
            msgspec.structs.replace(aged(600), meta=Meta(due_at_ms=due_at_ms))
        )
        pending, due = await oldest(outbox)
        assert pending > 599
        assert least <= due <= most


async def test_who_holds_the_most_bytes_comes_first_with_rows_of_every_state(
    outbox: Outbox,
) -> None:
    """Removed rows are nobody's."""
    assert await outbox.inspector.owners(10) == []
    few = await append_all(outbox, 1, "u-few")
    await deliver(outbox, await claim(outbox))
    many = await append_all(outbox, 3, "u-many")
    found = await outbox.inspector.owners(10)
    expected = [
        OwnerShare(rows[0].owner, len(rows), sum(len(one.payload) for one in rows))
        for rows in (many, few)
    ]
    assert found == expected
    assert await outbox.inspector.owners(1) == expected[:1]
    assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 1
    await outbox.repairs.discard(Named((many[0].id, many[2].id)), actor="ada")
    assert await outbox.inspector.owners(10) == [OwnerShare("u-many", 1, len(many[1].payload))]


NOON = 1_795_564_800_000


def sample(at_ms: int, waiting: int = 1) -> Sample:
    return Sample(at_ms, waiting, 2, 3.5, 4.25, "backing_off", "503 <busy>")


async def test_samples_survive_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.samples.add(sample(NOON))
    async with storage.open() as outbox:
        assert await outbox.samples.between(NOON, NOON) == [sample(NOON)]


async def test_samples_are_read_by_their_time_oldest_first(outbox: Outbox) -> None:
    """The first one of a minute counts."""
    for minute in (3, 1, 2, 4):
        await outbox.samples.add(sample(NOON + minute * MINUTE_MS))
    found = await outbox.samples.between(NOON + 2 * MINUTE_MS, NOON + 3 * MINUTE_MS)
    assert [one.at_ms for one in found] == [NOON + 2 * MINUTE_MS, NOON + 3 * MINUTE_MS]
    await asyncio.gather(*(outbox.samples.add(sample(NOON, 7)) for _ in range(4)))
    await outbox.samples.add(sample(NOON, 9))
    assert await outbox.samples.between(0, NOON) == [sample(NOON, 7)]


async def test_samples_of_more_than_a_week_are_dropped(outbox: Outbox) -> None:
    for at_ms in (NOON, NOON + MINUTE_MS, NOON + MINUTE_MS + KEPT_MS):
        await outbox.samples.add(sample(at_ms))
    found = await outbox.samples.between(0, NOON + 2 * KEPT_MS)
    assert [one.at_ms for one in found] == [NOON + MINUTE_MS, NOON + MINUTE_MS + KEPT_MS]


async def test_what_is_seen_is_kept_minute_by_minute(outbox: Outbox) -> None:
    view = stats_view(await outbox.inspector.stats(), serving=True)
    history = History(outbox.samples)
    for seconds in (0, 10, 50, 70, 200):
        await history.remember(NOON + seconds * 1000, Movement(view, 1.0, 2.0))
    kept = await outbox.samples.between(0, NOON + 9 * MINUTE_MS)
    assert [one.at_ms for one in kept] == [NOON, NOON + MINUTE_MS]
    assert (kept[0].accepted_rate, kept[0].delivered_rate) == (1.0, 2.0)
