"""Limits the requests of a user per second. Each process counts by itself."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from service.errors import RateLimitedError

_MAX_REMEMBERED = 10_000


class RateLimit:
    """A token bucket for each owner with the tokens of one second, at least one.

    With `per_second` None there is no limit.
    """

    def __init__(
        self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def check(self, owner: str) -> None:
        """Count a request of `owner`. Raises RateLimitedError; a refused request is not counted."""
        if self._per_second is None:
            return
        now, each = self._clock(), 1 / self._per_second
        full_at = max(now, self._full_at.get(owner, now)) + each
        excess = full_at - now - max(1.0, each)
        if excess > 1e-9:  # noqa: PLR2004  (rounding)
            raise RateLimitedError(retry_after_seconds=math.ceil(excess))
        self._full_at[owner] = full_at
        self._full_at.move_to_end(owner)
        if len(self._full_at) > _MAX_REMEMBERED:
            self._full_at.popitem(last=False)
