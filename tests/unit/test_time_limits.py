"""Clocks, and limits of time."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.outbox.clock import Clock, wall_now_ms
from service.web.server.deadline import Deadline
from tests.support.virtual_time import in_virtual_time, now


class Times:
    """Wall time and monotonic time as a test sets them."""

    wall = 1_800_000_000.5
    monotonic = 100.25


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    found = Times()
    monkeypatch.setattr(time, "time", lambda: found.wall)
    monkeypatch.setattr(time, "monotonic", lambda: found.monotonic)
    return found


def test_wall_time_is_in_milliseconds_since_1970(times: Times) -> None:
    assert wall_now_ms() == 1_800_000_000_500
    times.wall -= 60.0
    assert wall_now_ms() == 1_799_999_940_500


def test_a_clock_goes_on_from_wall_time_and_never_jumps(times: Times) -> None:
    clock = Clock()
    assert clock.now_ms() == 1_800_000_000_500
    times.wall += 3600.0
    times.monotonic += 2.5
    assert clock.now_ms() == 1_800_000_003_000


@in_virtual_time
async def test_a_deadline_calls_once_when_its_time_is_over() -> None:
    late: list[float] = []
    deadline = Deadline(asyncio.get_running_loop(), 5.0)
    assert not deadline.is_running
    deadline.start(lambda: late.append(now()))
    assert deadline.is_running
    await asyncio.sleep(3.0)
    deadline.start(lambda: late.append(-1.0))  # the time is counted already
    await asyncio.sleep(10.0)
    assert (late, deadline.is_running) == ([5.0], False)
    deadline.start(lambda: late.append(now()))
    await asyncio.sleep(10.0)
    assert late == [5.0, 18.0]


@in_virtual_time
async def test_a_deadline_that_is_stopped_calls_nobody_and_can_start_again() -> None:
    late: list[float] = []
    deadline = Deadline(asyncio.get_running_loop(), 5.0)
    deadline.stop()
    deadline.start(lambda: late.append(-1.0))
    await asyncio.sleep(3.0)
    deadline.stop()
    deadline.stop()
    assert not deadline.is_running
    deadline.start(lambda: late.append(now()))
    await asyncio.sleep(10.0)
    assert late == [8.0]


@in_virtual_time
async def test_a_deadline_is_over_before_it_calls() -> None:
    running: list[bool] = []
    deadline = Deadline(asyncio.get_running_loop(), 5.0)
    deadline.start(lambda: running.append(deadline.is_running))
    await asyncio.sleep(10.0)
    assert running == [False]
