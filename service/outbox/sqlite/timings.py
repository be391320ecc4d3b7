"""The writer's timings, as one policy that tests and the composition root inject."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.outbox.sqlite.commit_delay import DelayPolicy
from service.outbox.sqlite.throttle import ClaimPace


@dataclass(frozen=True, slots=True)
class WriterTimings:
    """How long the writer waits.

    After `stall_seconds` without an answer from the disk, waiting callers get an error. While the
    outbox can't be written, a probe tries it every `probe_seconds`. A commit without a sync is
    synced after `sync_seconds`. A group waits at most `gather_turns` turns of the event loop for
    requests that have arrived, then as long as `delay` says. Claims follow one another as
    `pace` says. `clock` gives seconds; uvloop's own counts milliseconds.
    """

    stall_seconds: float = 3.0
    probe_seconds: float = 0.5
    sync_seconds: float = 1.0
    gather_turns: int = 8
    delay: DelayPolicy = field(default_factory=DelayPolicy)
    pace: ClaimPace = field(default_factory=ClaimPace)
    clock: Callable[[], float] = time.monotonic
