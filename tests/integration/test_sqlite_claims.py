"""Claims on an SQLite outbox: cancelled, beside many posts, and by the store's own clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from inngest_outbox.outbox.clock import Clock
from inngest_outbox.outbox.limits import FairShare
from inngest_outbox.outbox.model import ClaimRequest, Filter, Isolated, Retry, Settlement
from inngest_outbox.outbox.sqlite import store
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.outbox.sqlite.timings import ClaimPace
from tests.support.storage import (
    LIMITS,
    PATIENCE_SECONDS,
    PATIENT_WRITER,
    append_all,
    ask,
    claim,
    claims_nothing,
    event,
    eventually,
)


async def test_a_claim_that_came_as_it_was_cancelled_is_released(outbox: SqliteOutbox) -> None:
    await append_all(outbox, 5)
    waiting = asyncio.create_task(outbox.queue.claim(ask()))
    await asyncio.sleep(0)
    [(_, future)] = outbox.writer._waiting.claims
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not future.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def released() -> bool:
        return (await outbox.inspector.stats()).delivering == 0

    await eventually(released)
    assert [entry.sends for entry in (await claim(outbox)).entries] == [0] * 5


async def test_a_cancelled_claim_leaves_no_row_delivering_without_another_claim(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 5)
    waiting = asyncio.create_task(outbox.queue.claim(ask()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not ((group := outbox.writer.watchdog.group) and group.claims):  # noqa: ASYNC110
            await asyncio.sleep(0)
    groups = outbox.commits.count
    waiting.cancel()
    await eventually(lambda: outbox.commits.count > groups)

    async def released() -> bool:
        stats = await outbox.inspector.stats()
        return (stats.pending, stats.delivering) == (5, 0)

    await eventually(released)


async def test_claims_beside_many_posts_are_few_and_large(path: Path) -> None:
    pace = ClaimPace(busy_appends_per_second=1, pause_seconds=1.0, longest_seconds=1.0)
    timings, batches = replace(PATIENT_WRITER, pace=pace), list[int]()
    async with open_sqlite_outbox(path, **LIMITS, timings=timings) as outbox:

        async def drain() -> None:
            while sum(batches) < 20:
                batches.append(len((await claim(outbox, ask(500))).entries))

        draining = asyncio.create_task(drain())
        for _ in range(20):
            await outbox.intake.append(event())
        await draining
    assert len(batches) < 10


class SetClock(Clock):
    """The store's own clock, as a test sets it."""

    ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    made = SetClock()
    monkeypatch.setattr(store, "Clock", lambda: made)
    return made


@pytest.fixture
async def crowded(path: Path, clock: SetClock) -> AsyncIterator[SqliteOutbox]:
    """An outbox in which six waiting rows make an owner noisy."""
    given = {**LIMITS, "timings": PATIENT_WRITER, "fair_share": FairShare(noisy_rows=5)}
    async with open_sqlite_outbox(path, **given) as opened:
        yield opened


async def taken(outbox: SqliteOutbox, max_events: int = 100, **changes: object) -> list[int]:
    """The numbers of the rows that a claim takes."""
    return [entry.seq for entry in (await claim(outbox, ask(max_events, **changes))).entries]


@pytest.mark.parametrize(
    ("delays", "steps"),
    [
        ({2: 5, 4: 0.5, 6: 99}, [(499, 1, [1]), (500, 1, [4]), (5000, 1, [2]), (5000, 9, [3, 5])]),
        ({2: 5, 4: 0.5, 6: 99}, [(5000, 3, [1, 2, 4]), (5000, 9, [3, 5])]),
        ({1: 5, 2: 4, 3: 4}, [(9000, 1, [2]), (9000, 1, [3]), (9000, 1, [1])]),
    ],
)
async def test_rows_whose_delay_is_over_come_first_by_the_end_of_their_delay(
    clock: SetClock,
    crowded: SqliteOutbox,
    delays: dict[int, float],
    steps: list[tuple[int, int, list[int]]],
) -> None:
    await append_all(crowded, 6)
    batch = await claim(crowded)
    again = [Retry(seq, delays.get(seq, 0), 0, isolated=False) for seq in range(1, 7)]
    await crowded.queue.settle(Settlement(batch.claim, retry=again))
    for ms, max_events, seqs in steps:
        clock.ms = SetClock.ms + ms
        assert await taken(crowded, max_events) == seqs


async def test_a_row_to_send_alone_is_alone_though_its_caller_wanted_a_time(
    outbox: SqliteOutbox,
) -> None:
    """As the journal brings one back that was tried before."""
    await append_all(outbox, 2)
    changes = "UPDATE outbox_ready SET isolated = 1, delayed = 1, due_at_ms = 1 WHERE seq = 1"
    await outbox.writer.run(lambda connection: connection.execute(changes).rowcount)
    assert await taken(outbox, isolated=Isolated.NONE) == [2]
    assert await taken(outbox) == [1]


async def test_a_lease_is_over_as_soon_as_it_ends(clock: SetClock, crowded: SqliteOutbox) -> None:
    await append_all(crowded, 1)
    assert await taken(crowded, lease_seconds=0.3) == [1]
    clock.ms += 299
    assert await claims_nothing(crowded)
    clock.ms += 1
    assert await taken(crowded) == [1]


@pytest.mark.parametrize(
    ("count", "wanted", "seqs"),
    [
        (5, ask(4, fresh_share=0.5), [1, 2, 4, 5]),
        (10, ask(6, fresh_share=0.5, max_bytes=300), [1, 10]),
        (4, ask(4, fresh_share=0.5, max_bytes=250), [1, 4]),
    ],
)
async def test_the_newest_rows_have_their_whole_share_and_no_more(
    outbox: SqliteOutbox, count: int, wanted: ClaimRequest, seqs: list[int]
) -> None:
    for _ in range(count):
        await outbox.intake.append(event(size=100))
    assert [entry.seq for entry in (await claim(outbox, wanted)).entries] == seqs


async def test_the_newest_share_is_of_rows_since_the_start_and_a_share_of_one_is_of_all(
    path: Path,
) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 6)
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert await taken(outbox, 4, fresh_share=0.5) == [1, 2, 3, 4]
        assert await taken(outbox, 1, fresh_share=1.0) == [6]
        await append_all(outbox, 2)
        assert await taken(outbox, 2, fresh_share=0.5) == [5, 8]


async def test_rows_stay_fresh_for_one_or_two_minutes(
    clock: SetClock, crowded: SqliteOutbox
) -> None:
    wanted = {"fresh_share": 0.5, "lease_seconds": 9999.0}
    for minute, seqs in enumerate(([1, 4], [2, 8], [3, 12], [5, 16])):
        clock.ms = SetClock.ms + max(0, minute * 60_000 - 1)
        await append_all(crowded, 4)
        clock.ms = SetClock.ms + minute * 60_000
        assert await taken(crowded, 2, **wanted) == seqs
    clock.ms = SetClock.ms + 240_000 - 1
    assert await taken(crowded, 2, **wanted) == [6, 15]
    clock.ms += 1
    assert await taken(crowded, 2, **wanted) == [7, 9]


async def test_after_a_flood_rows_come_in_their_order_again(crowded: SqliteOutbox) -> None:
    await append_all(crowded, 2, "first")
    await append_all(crowded, 10, "flood")
    batch = await claim(crowded)
    again = [Retry(seq, 0, 0, isolated=False) for seq in (1, 2)]
    settlement = Settlement(batch.claim, delivered=list(range(3, 13)), retry=again)
    assert await crowded.queue.settle(settlement) == 0
    await append_all(crowded, 1, "ada")
    assert await taken(crowded, 2) == [1, 2]


@pytest.mark.parametrize("ends", ["by its lease", "unseen", "for another try"])
async def test_few_rows_that_come_back_from_a_claim_have_their_share_again(
    clock: SetClock, crowded: SqliteOutbox, ends: str
) -> None:
    await append_all(crowded, 10, "flood")
    await append_all(crowded, 3, "ada")
    assert await taken(crowded, 4) == [1, 2, 11, 12]
    late = await claim(crowded, ask(4, lease_seconds=1.0))
    assert await taken(crowded, 4) == [6, 7, 8, 9]
    if ends == "unseen":
        crowded.claims.abandon(late)
    if ends == "for another try":
        again = [Retry(entry.seq, 0, 0, isolated=False) for entry in late.entries]
        await crowded.queue.settle(Settlement(late.claim, retry=again))
    clock.ms += 1000
    assert sorted(await taken(crowded, 1) + await taken(crowded, 2)) == [3, 4, 13]


async def test_a_batch_that_nobody_received_is_released_once(outbox: SqliteOutbox) -> None:
    await append_all(outbox, 1)
    batch = await claim(outbox)
    again = Retry(1, 0, attempts=1, isolated=True, note="no")
    await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
    [before] = await outbox.inspector.rows(Filter())
    outbox.claims.abandon(await claim(outbox))
    assert outbox.claims.due_in_seconds(waiting=False) == 0
    assert await claims_nothing(outbox, ask(isolated=Isolated.NONE))
    assert await outbox.inspector.rows(Filter()) == [before]
    assert await taken(outbox, lease_seconds=600) == [1]
    assert outbox.claims.due_in_seconds(waiting=False) is None
