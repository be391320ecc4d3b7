"""The writer's timings, as one policy that tests and the composition root inject."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriterTimings:
    """How long the writer waits.

    After `stall_seconds` without an answer from the disk, whoever waits gets an error. While the
    outbox can't be written, it is tried every `probe_seconds`. A commit that was not synced is
    synced after `sync_seconds`. Requests that have arrived join a group in `gather_turns` turns of
    the event loop at most.
    """

    stall_seconds: float = 3.0
    probe_seconds: float = 0.5
    sync_seconds: float = 1.0
    gather_turns: int = 8
