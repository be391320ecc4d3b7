"""The writer when a commit, a kind or the disk fails: who hears it, and when it works again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from tests.support.virtual_time import in_virtual_time
from tests.support.writer_desk import BROKEN, BUSY, FULL, desk


@in_virtual_time
async def test_work_between_commits_gives_its_result_and_its_failure_is_probed_at_once() -> None:
    async with desk() as at:
        assert await at.writer.between_commits(lambda: 7) == 7
        await asyncio.sleep(1)

        def fail() -> None:
            raise BUSY

        with pytest.raises(OutboxUnavailableError):
            await at.writer.between_commits(fail)
        assert at.watchdog.failure is BUSY
        await asyncio.sleep(0.1)
        assert at.commits.probed_at == [1.0]
        assert at.watchdog.failure is None


@in_virtual_time
async def test_after_a_failure_it_is_probed_every_half_second_and_claims_are_tried_again() -> None:
    async with desk() as at:
        broken = [BUSY, FULL, FULL]

        def fail() -> None:
            if broken:
                raise broken.pop(0)

        at.commits.probing = fail
        at.blocking.answer = lambda item: None
        waiting = at.writer.submit(at.blocking, 1)
        await asyncio.sleep(0.1)
        at.blocking.answer = lambda item: "a row"
        with pytest.raises(OutboxUnavailableError):
            await at.writer.between_commits(fail)
        await asyncio.sleep(0.6)
        assert at.watchdog.failure is FULL
        await asyncio.sleep(5)
        assert at.commits.probed_at == pytest.approx([0.1, 0.6, 1.1])
        assert at.watchdog.failure is None
        assert await waiting == "a row"


@in_virtual_time
async def test_an_outbox_that_did_not_open_is_probed_in_half_a_second() -> None:
    async with desk(BUSY) as at:
        await asyncio.sleep(5)
        assert at.commits.probed_at == [0.5]
        assert at.watchdog.failure is None


@in_virtual_time
async def test_who_comes_while_a_probe_hangs_gets_an_error() -> None:
    async with desk(BUSY) as at:
        at.commits.probing = lambda: asyncio.sleep(100)
        await asyncio.sleep(1)
        submitted = at.writer.submit(at.first, 1)
        assert await at.told(submitted) == ["The outbox's disk does not answer."]
        assert at.now() == 3.5
        assert at.first.told == [("failed", [1])]


@in_virtual_time
async def test_who_waits_for_a_commit_that_hangs_gets_an_error_and_the_kind_its_result() -> None:
    async with desk() as at:
        at.commits.before = lambda group: asyncio.sleep(10)
        submitted = at.writer.submit(at.first, 1)
        await asyncio.sleep(1)
        later = at.writer.submit(at.first, 2)
        assert await at.told(submitted, later) == ["The outbox's disk does not answer."] * 2
        assert at.now() == 3
        assert at.watchdog.failure
        await asyncio.sleep(8)
        told = [one for one in at.first.told if one[1]]
        assert told == [("failed", [2]), ("committed", [1], ["done 1"], [False])]
        assert at.watchdog.failure is None


@in_virtual_time
async def test_a_kind_that_fails_takes_no_other_with_it() -> None:
    async with desk() as at:
        at.raising(FULL, None, FULL, None)
        good, full = at.writer.submit(at.first, 1), at.writer.submit(at.second, 2)
        later = at.writer.submit(at.blocking, 3)
        assert await at.told(good, full, later) == ["done 1", str(FULL), "done 3"]
        assert at.commits.groups == [
            {at.first: [1], at.second: [2], at.blocking: [3]},
            {at.first: [1]},
            {at.second: [2]},
            {at.blocking: [3]},
        ]
        assert at.second.told == [("failed", [2])]
        assert at.watchdog.failure is FULL

        def still_full() -> None:
            raise FULL

        at.commits.probing = still_full
        await at.writer.submit(at.first, 4)
        assert at.watchdog.failure is FULL
        await at.writer.submit(at.second, 5)
        assert at.watchdog.failure is None


@in_virtual_time
async def test_an_item_that_fails_takes_no_other_with_it() -> None:
    async with desk() as at:
        at.raising(BROKEN, None, BROKEN, None)
        futures = [at.writer.submit(at.first, item) for item in (1, 2, 3)]
        assert await at.told(*futures) == ["done 1", str(BROKEN), "done 3"]
        assert at.watchdog.failure is None
        at.raising(ValueError("a bug"))
        assert await at.told(at.writer.submit(at.first, 4)) == ["a bug"]
        assert at.watchdog.failure is None


@in_virtual_time
async def test_when_the_store_fails_all_who_wait_hear_it_at_once() -> None:
    async with desk() as at:
        late: list[asyncio.Future[Any]] = []

        def before(group: dict[Any, list[Any]]) -> None:
            if len(group) > 1:
                raise BROKEN
            late.append(at.writer.submit(at.second, 9))
            raise BUSY

        at.commits.before = before
        futures = [at.writer.submit(kind, 1) for kind in (at.first, at.second, at.blocking)]
        assert await at.told(*futures) == [str(BUSY)] * 3
        assert await at.told(*late) == [str(BUSY)]
        assert len(at.commits.groups) == 2
        for kind in (at.first, at.second, at.blocking):
            assert ("failed", [1]) in kind.told


@in_virtual_time
async def test_who_came_during_a_commit_that_failed_alone_is_served() -> None:
    async with desk() as at:
        late: list[asyncio.Future[Any]] = []

        def before(group: dict[Any, list[Any]]) -> None:
            if group == {at.first: [1]}:
                late.append(at.writer.submit(at.first, 2))
                raise BROKEN

        at.commits.before = before
        assert await at.told(at.writer.submit(at.first, 1)) == [str(BROKEN)]
        assert await at.told(*late) == ["done 2"]


@in_virtual_time
async def test_a_fault_of_the_service_is_logged_and_the_writer_goes_on_after_a_probe() -> None:
    async with desk() as at:

        def fail() -> None:
            at.first.after_commit = lambda: None
            raise ZeroDivisionError

        at.first.after_commit = fail
        with capture_logs() as logs:
            assert await at.writer.submit(at.first, 1) == "done 1"
            await asyncio.sleep(0.1)
        assert [one["event"] for one in logs] == ["writer_failed", "not_writable"]
        assert str(at.watchdog.failure) == "A fault of the service: ZeroDivisionError"
        assert await at.writer.submit(at.first, 2) == "done 2"
        await asyncio.sleep(1)
        assert at.watchdog.failure is None
        assert at.writer.alive


@in_virtual_time
async def test_a_kind_that_fails_after_the_commit_of_a_part_keeps_no_other_part_back() -> None:
    async with desk() as at:

        def fail_together(group: Any) -> None:
            if len(group) > 1:
                raise FULL

        at.commits.before = fail_together
        at.first.after_commit = lambda: 1 / 0
        submitted = at.writer.submit(at.first, 1), at.writer.submit(at.second, 2)
        await asyncio.sleep(1)
        assert all(one.done() for one in submitted)
        assert await at.told(*submitted) == ["done 1", "done 2"]
