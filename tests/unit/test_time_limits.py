"""Wall time, and a clock that never jumps."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from inngest_outbox.outbox.clock import Clock, wall_now_ms


def test_a_clock_goes_on_from_wall_time_and_never_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(wall=1_800_000_000.5, monotonic=100.25)
    monkeypatch.setattr(time, "time", lambda: times.wall)
    monkeypatch.setattr(time, "monotonic", lambda: times.monotonic)
    clock = Clock()
    assert clock.now_ms() == wall_now_ms() == 1_800_000_000_500
    times.wall -= 60.0
    times.monotonic += 2.5
    assert (clock.now_ms(), wall_now_ms()) == (1_800_000_003_000, 1_799_999_940_500)
