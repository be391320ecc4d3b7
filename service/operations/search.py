"""Finding rows among any number of them, a bounded look at a time.

No filter needs an index of its own: the rows of a state are read in their order, in windows that
are bounded in rows. A search that takes long returns what it has found, and where to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from service.outbox.model import Filter, Row, State
from service.outbox.operator_ports import Positions
from service.outbox.ports import Inspector

MOST_OF_PREFIX = 10_000
_GROWTH = 4
_CLOCK_SLACK_MS = 60_000  # rows are in the order of acceptance but for so much


@dataclass(frozen=True, slots=True)
class SearchPolicy:
    """How many rows statements go through, at first and at most, and when a search pauses."""

    first_window: int = 500
    window: int = 20_000
    budget_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of a search, newest first.

    More may follow below `next_seq`, None when all were gone through. `paused_at_ms` is set when
    the search paused before the page was full: rows accepted before it were not looked at.
    `is_cut` says that more ids than are shown begin with the prefix.
    """

    rows: list[Row]
    next_seq: int | None = None
    paused_at_ms: int | None = None
    is_cut: bool = False


class Search:
    """Searches through an inspector, window by window."""

    def __init__(
        self,
        inspector: Inspector,
        positions: Positions,
        policy: SearchPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inspector = inspector
        self._positions = positions
        self._policy = policy or SearchPolicy()
        self._clock = clock

    async def find(self, wanted: Filter) -> Found:
        """The newest matching rows, at most `wanted.limit`. Raises OutboxUnavailableError."""
        if wanted.ids is not None or wanted.id_prefix:
            return await self._find_ids(wanted)
        if wanted.reason is not None and wanted.state is None:
            wanted = msgspec.structs.replace(wanted, state=State.DEAD)  # only these have one
        until = self._clock() + self._policy.budget_seconds
        before = await self._start(wanted)
        rows: list[Row] = []
        size = self._policy.first_window
        while True:
            reach = await self._positions.reach(wanted.state, size, before)
            size = min(size * _GROWTH, self._policy.window)
            window = msgspec.structs.replace(
                wanted,
                before_seq=before,
                after_seq=reach.seq - 1 if reach else None,
                limit=wanted.limit + 1 - len(rows),
            )
            rows += await self._inspector.rows(window)
            if len(rows) > wanted.limit:
                return Found(rows[:-1], rows[-2].seq)
            if reach is None or _is_over(wanted, reach.accepted_at_ms):
                return Found(rows)
            before = reach.seq
            if self._clock() >= until:
                return Found(rows, before, reach.accepted_at_ms)

    async def _find_ids(self, wanted: Filter) -> Found:
        if wanted.ids is not None:
            return Found(await self._inspector.rows(wanted))
        anywhere = msgspec.structs.replace(wanted, state=None, limit=MOST_OF_PREFIX)
        found = await self._inspector.rows(anywhere)
        rows = [row for row in found if wanted.state in (None, row.state)]
        is_cut = len(rows) > wanted.limit or len(found) == MOST_OF_PREFIX
        return Found(rows[: wanted.limit], is_cut=is_cut)

    async def _start(self, wanted: Filter) -> int | None:
        if wanted.until_ms is None:
            return wanted.before_seq
        latest = await self._positions.seq_at(wanted.until_ms + _CLOCK_SLACK_MS)
        return latest if wanted.before_seq is None else min(latest, wanted.before_seq)


def _is_over(wanted: Filter, reached_ms: int) -> bool:
    return wanted.since_ms is not None and reached_ms < wanted.since_ms - _CLOCK_SLACK_MS
