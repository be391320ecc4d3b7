"""When delivery was in trouble, from the outbox's history. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.outbox.sample import MINUTE_MS, Sample

_HEALTHY = "healthy"
_GAP_MS = 3 * MINUTE_MS  # minutes without a sample between two of the same trouble


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """A time in which delivery was in one state other than healthy, to the minute."""

    from_ms: int
    until_ms: int
    state: str
    reason: str

    @property
    def words(self) -> str:
        """The trouble as a sentence, without its times."""
        said = f": {self.reason}" if self.reason else ""
        return f"Delivery was {self.state.replace('_', ' ')}{said}"


def troubles(samples: Sequence[Sample]) -> list[Trouble]:
    """The troubles of these minutes, the oldest first."""
    found: list[Trouble] = []
    for one in samples:
        if one.state == _HEALTHY:
            continue
        last = found[-1] if found else None
        if last and last.state == one.state and one.at_ms - last.until_ms <= _GAP_MS:
            found[-1] = msgspec.structs.replace(last, until_ms=one.at_ms + MINUTE_MS)
        else:
            found.append(Trouble(one.at_ms, one.at_ms + MINUTE_MS, one.state, one.reason))
    return found
