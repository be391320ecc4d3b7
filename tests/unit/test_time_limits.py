"""Wall time, and a clock that never jumps."""

from __future__ import annotations

import time

import pytest

from service.outbox.clock import Clock, wall_now_ms


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
