"""How the writer of a store process differs from that of a service in one process."""

from __future__ import annotations

import os
from dataclasses import replace

from service.outbox.sqlite.commit_delay import DelayPolicy
from service.outbox.sqlite.throttle import ClaimPace
from service.outbox.sqlite.timings import WriterTimings

_STREAM_PAUSE_SECONDS = 0.05  # so a claim and its send serve more events
_DELAY_SHARE = 2.0  # of the last commit's time: three times the events of a commit that waits not


def timings_beside_fronts(fronts: int, cores: int | None = None) -> WriterTimings:
    """The timings of a writer to which `fronts` processes hand events.

    Commits wait a moment for the messages of other fronts. While many events come in and there is
    no backlog, claims are fewer and larger. Where there are fewer `cores` than processes, None for
    those of this machine, a drain leaves the fronts their part of them.
    """
    known = cores or os.cpu_count() or 1
    pace = ClaimPace()
    share = pace.processor_share * min(1.0, known / (fronts + 1))
    return WriterTimings(
        delay=DelayPolicy(share=_DELAY_SHARE),
        pace=replace(pace, stream_pause_seconds=_STREAM_PAUSE_SECONDS, processor_share=share),
    )
