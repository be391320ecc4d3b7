"""The writer lets appends of other processes join a commit, as long as its policy allows."""

from __future__ import annotations

import asyncio

from service.outbox.sqlite.commit_delay import DelayPolicy
from tests.support.virtual_time import in_virtual_time
from tests.support.writer_desk import Desk, desk

POLICY = DelayPolicy(share=2.0, least_appends=3, most_seconds=10.0)


async def committed(at: Desk, count: int, *, seconds: float) -> None:
    """A commit of `count` items that takes so long."""
    at.commits.before = lambda group: asyncio.sleep(seconds)
    await asyncio.gather(*(at.writer.submit(at.first, item) for item in range(count)))
    at.commits.before = lambda group: None


@in_virtual_time
async def test_items_that_come_one_by_one_share_the_commit_after_a_large_one() -> None:
    async with desk(delay=POLICY) as at:
        await committed(at, 3, seconds=1.0)
        coming = []
        for item in (7, 8):
            coming.append(at.writer.submit(at.first, item))
            await asyncio.sleep(0.5)
        assert len(at.commits.groups) == 1
        coming.append(at.writer.submit(at.second, 9))
        await asyncio.gather(*coming)
        assert at.commits.groups[1:] == [{at.first: [7, 8], at.second: [9]}]
        assert at.now() == 2.0


@in_virtual_time
async def test_an_item_that_stays_alone_waits_no_longer_than_the_policy_allows() -> None:
    async with desk(delay=POLICY) as at:
        await asyncio.sleep(60)
        await committed(at, 3, seconds=1.0)
        await at.writer.submit(at.first, 7)
        assert at.now() == 63.0
        await at.writer.submit(at.first, 8)
        assert at.now() == 63.0


@in_virtual_time
async def test_what_came_during_the_commit_waits_for_those_that_it_answered() -> None:
    async with desk(delay=POLICY) as at:
        at.commits.before = lambda group: asyncio.sleep(1.0)
        first = [at.writer.submit(at.first, item) for item in range(3)]
        await asyncio.sleep(0.5)
        early = at.writer.submit(at.first, 3)
        await asyncio.gather(*first)
        at.commits.before = lambda group: None
        again = [at.writer.submit(at.first, item) for item in range(4, 7)]
        await asyncio.gather(early, *again)
        assert at.commits.groups[1:] == [{at.first: [3, 4, 5, 6]}]
        assert at.now() == 1.0


@in_virtual_time
async def test_items_that_need_no_sync_are_not_counted() -> None:
    async with desk(delay=POLICY) as at:
        at.first.synced = False  # type: ignore[misc]
        await committed(at, 3, seconds=1.0)
        await at.writer.submit(at.first, 7)
        assert at.now() == 1.0


@in_virtual_time
async def test_a_stop_waits_for_no_one() -> None:
    async with desk(delay=POLICY) as at:
        await committed(at, 3, seconds=1.0)
        last = at.writer.submit(at.first, 7)
        await asyncio.sleep(0.25)
        await at.writer.stop()
        assert await last == "done 7"
        assert at.now() == 1.25


@in_virtual_time
async def test_after_a_commit_that_failed_the_next_one_waits_as_after_the_one_before() -> None:
    async with desk(delay=POLICY) as at:
        await committed(at, 3, seconds=1.0)
        at.raising(ValueError("broken"))
        refused = at.writer.submit(at.first, 7)
        assert await at.told(refused) == ["broken"]
        assert at.now() == 3.0
        await at.writer.submit(at.first, 8)
        assert at.now() == 3.0
