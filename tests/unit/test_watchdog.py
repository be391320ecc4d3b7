"""The watchdog: when the outbox counts as failing, and that nobody waits for a disk that hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.watchdog import Watchdog
from service.outbox.sqlite.work import Waiting
from tests.support.delivery_world import Remembering
from tests.support.virtual_time import in_virtual_time
from tests.support.work_kinds import Kind, fault

TIMINGS = WriterTimings(stall_seconds=3.0, probe_seconds=0.5)


class Watched:
    def __init__(self) -> None:
        self.stalls: list[tuple[float, str]] = []
        self.recorder, self.damage = Remembering(), Damage(Path("outbox.db"))
        self.loop = asyncio.get_running_loop()
        self.dog = Watchdog(TIMINGS, self.recorder, self.damage, self._stalled)

    def _stalled(self, error: Exception) -> None:
        self.stalls.append((self.loop.time(), str(error)))

    def group(self, kind: Kind) -> dict[Any, Waiting[Any]]:
        return {kind: Waiting(["item"], [self.loop.create_future()])}


@in_virtual_time
async def test_who_waits_for_a_disk_that_hangs_gets_an_error_again_and_again() -> None:
    watched = Watched()
    assert watched.dog.group == {}
    group = watched.group(Kind())
    [future] = next(iter(group.values())).futures
    with watched.dog.watching(group):
        assert watched.dog.group is group
        await asyncio.sleep(2.9)
        assert not future.done()
        await asyncio.sleep(6.0)
    await asyncio.sleep(10.0)
    with pytest.raises(OutboxUnavailableError, match="does not answer"):
        await future
    sentence = "The outbox's disk does not answer."
    assert watched.stalls == [(3.0, sentence), (6.0, sentence)]
    assert str(watched.dog.failure) == sentence


@in_virtual_time
async def test_nothing_is_watched_after_a_call_that_ended_or_failed() -> None:
    watched = Watched()
    with pytest.raises(ZeroDivisionError), watched.dog.watching(watched.group(Kind())):
        raise ZeroDivisionError
    assert watched.dog.group == {}
    await asyncio.sleep(10.0)
    assert watched.stalls == []
    assert watched.dog.failure is None


@pytest.mark.parametrize(
    ("error", "all_fail", "is_failing"),
    [
        (ValueError("a bug"), False, False),
        (fault("SQLITE_CONSTRAINT"), False, False),
        (fault("SQLITE_FULL"), False, True),
        (fault("SQLITE_CORRUPT"), False, True),
        (fault("SQLITE_BUSY"), True, True),
        (fault("SQLITE_IOERR"), True, True),
        (OutboxUnavailableError("It was closed."), True, True),
    ],
)
def test_what_a_failed_commit_says_of_the_store(
    error: Exception, *, all_fail: bool, is_failing: bool
) -> None:
    @in_virtual_time
    async def trial() -> None:
        watched = Watched()
        assert watched.dog.failed(error, watched.group(Kind())) is all_fail
        assert watched.dog.failure is (error if is_failing else None)
        assert watched.dog.wants_probe is is_failing
        assert watched.damage.is_found is ("CORRUPT" in str(error))

    trial()


@in_virtual_time
async def test_a_kind_that_failed_works_again_only_with_a_commit_of_its_own() -> None:
    watched, full, other = Watched(), Kind(), Kind()
    dog = watched.dog
    dog.failed(fault("SQLITE_FULL"), watched.group(full))
    dog.passed(watched.group(other))
    assert dog.failure
    dog.passed(watched.group(full))
    assert dog.failure is None


@in_virtual_time
async def test_a_store_that_failed_works_again_with_any_commit() -> None:
    watched, full, other = Watched(), Kind(), Kind()
    dog = watched.dog
    dog.failed(fault("SQLITE_FULL"), watched.group(full))
    dog.failed(fault("SQLITE_IOERR"), watched.group(full))
    dog.passed(watched.group(other))
    assert dog.failure is None
    dog.failed(fault("SQLITE_FULL"), {})
    dog.passed(watched.group(other))
    assert dog.failure is None
    dog.failed(fault("SQLITE_FULL"), watched.group(full))
    dog.probed(None)
    dog.probed(fault("SQLITE_IOERR"))
    dog.passed(watched.group(other))
    assert dog.failure is None


@in_virtual_time
async def test_a_store_that_fails_is_probed_at_once_and_then_every_half_second() -> None:
    watched = Watched()
    dog = watched.dog
    assert not dog.wants_probe
    dog.failed(fault("SQLITE_IOERR"), {})
    assert dog.wants_probe
    dog.probed(fault("SQLITE_IOERR"))
    assert not dog.wants_probe
    await asyncio.sleep(0.4)
    assert not dog.wants_probe
    await asyncio.sleep(0.1)
    assert dog.wants_probe
    dog.probed(None)
    await asyncio.sleep(5)
    assert dog.failure is None
    assert not dog.wants_probe


@in_virtual_time
async def test_a_failure_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    watched = Watched()
    dog = watched.dog
    with capture_logs() as logs:
        dog.passed({})
        dog.probed(None)
        for name in ("SQLITE_FULL", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_IOERR"):
            dog.probed(fault(name))
        dog.probed(None)
        dog.probed(None)
    assert [(one["event"], one.get("reason")) for one in logs] == [
        ("not_writable", "The outbox's file failed. (SQLITE_FULL)"),
        ("not_writable", "The outbox's file failed. (SQLITE_IOERR)"),
        ("writable_again", None),
    ]
    assert watched.recorder.counted["write_failures"] == 2
