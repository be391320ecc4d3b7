"""The writer: one commit for all that waits, an answer for each, and a stop that waits for none."""

from __future__ import annotations

import asyncio

from tests.support.virtual_time import in_virtual_time
from tests.support.writer_desk import Desk, desk


@in_virtual_time
async def test_what_waits_at_one_moment_shares_a_commit_and_no_one_waits_for_time() -> None:
    async with desk() as at:
        loop = asyncio.get_running_loop()
        futures = [at.writer.submit(at.second, 1), at.writer.submit(at.first, 2)]
        loop.call_soon(lambda: futures.append(at.writer.submit(at.first, 3)))
        await asyncio.sleep(0)
        assert await at.told(*futures) == ["done 1", "done 2", "done 3"]
        assert at.commits.groups == [{at.first: [2, 3], at.second: [1]}]
        assert await at.told(at.writer.submit(at.first, 4)) == ["done 4"]
        assert at.now() == 0
        assert at.writer.alive
    assert not at.writer.alive
    assert at.commits.stopped


@in_virtual_time
async def test_a_writer_that_was_never_started_is_not_alive_and_stops() -> None:
    made = Desk()
    assert not made.writer.alive
    await made.writer.stop()
    assert made.commits.stopped
    assert not made.writer.alive


@in_virtual_time
async def test_a_blocking_item_is_tried_beside_others_when_woken_and_when_due() -> None:
    async with desk() as at:
        at.blocking.answer = lambda item: None
        waiting = at.writer.submit(at.blocking, 1)
        await at.writer.submit(at.first, 2)
        assert not waiting.done()
        before = len(at.commits.groups)
        at.writer.wake()
        await asyncio.sleep(0.1)
        assert len(at.commits.groups) == before + 1
        at.blocking.due_at = 4.0
        at.writer.wake()
        await asyncio.sleep(0.1)
        assert len(at.commits.groups) == before + 2
        at.blocking.answer = lambda item: "a row"
        at.blocking.after_commit = lambda: setattr(at.blocking, "due_at", None)
        assert await waiting == "a row"
        assert at.now() == 4.0


@in_virtual_time
async def test_a_commit_without_a_sync_is_synced_when_that_is_due_and_not_before() -> None:
    async with desk() as at:
        await asyncio.sleep(2)
        await at.writer.submit(at.first, 1)
        at.blocking.due_at = 7.0
        at.blocking.after_commit = lambda: setattr(at.blocking, "due_at", None)
        at.commits.sync_due_at = 2.25
        await at.writer.submit(at.first, 2)
        await asyncio.sleep(0.2)
        assert len(at.commits.groups) == 2
        await asyncio.sleep(0.1)
        assert at.commits.groups[2:] == [{}]
        at.commits.sync_due_at = 11.0
        at.writer.wake()
        await asyncio.sleep(4.6)
        assert at.commits.groups[3:] == []
        await asyncio.sleep(0.2)
        assert at.commits.groups[3:] == [{at.blocking: []}]


@in_virtual_time
async def test_a_late_sync_that_is_overdue_is_made_at_once() -> None:
    async with desk() as at:
        await asyncio.sleep(1)
        at.commits.sync_due_at = 0.5
        at.writer.wake()
        await asyncio.sleep(0.01)
        assert at.commits.groups == [{}]


@in_virtual_time
async def test_a_stop_writes_what_waits_and_cancels_who_waits_for_rows() -> None:
    async with desk() as at:
        at.blocking.answer = lambda item: None
        waiting = at.writer.submit(at.blocking, 1)
        await asyncio.sleep(0.1)
        began = at.now()
        written = [at.writer.submit(at.first, item) for item in (2, 3)]
        await at.writer.stop()
        assert await at.told(*written) == ["done 2", "done 3"]
        assert waiting.cancelled()
        assert at.now() == began


@in_virtual_time
async def test_a_stop_claims_nothing_and_waits_for_nothing() -> None:
    async with desk() as at:
        at.blocking.answer = lambda item: None
        waiting = at.writer.submit(at.blocking, 1)
        await asyncio.sleep(0.1)
        before = len(at.commits.groups)
        at.blocking.due_at = began = at.now()
        at.blocking.answer = lambda item: "a row"
        await at.writer.stop()
        assert waiting.cancelled()
        assert len(at.commits.groups) == before
        assert at.now() == began


@in_virtual_time
async def test_a_stop_abandons_a_disk_that_hangs_and_who_waits_for_it() -> None:
    async with desk() as at:
        slow = [2.0, 1000.0]
        at.commits.before = lambda group: asyncio.sleep(slow.pop(0))
        first = at.writer.submit(at.first, 1)
        await asyncio.sleep(0.5)
        second = at.writer.submit(at.first, 2)
        await at.writer.stop()
        assert at.now() == 3.5
        assert await first == "done 1"
        assert second.cancelled()
        assert not at.writer.alive
        assert at.commits.stopped
