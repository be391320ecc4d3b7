"""The lag of the event loop: what holds it up holds up every request."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from service.observe.recorder import Recorder

_LOOK_SECONDS = 0.1
_KEPT_SECONDS = 10.0


async def keep_lag(recorder: Recorder) -> None:
    """Measure the delay of this event loop until cancelled."""
    worst: deque[float] = deque(maxlen=round(_KEPT_SECONDS / _LOOK_SECONDS))
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_LOOK_SECONDS)
        worst.append(max(0.0, time.perf_counter() - began - _LOOK_SECONDS))
        recorder.gauge("event_loop_lag_seconds", max(worst))
