"""Finding rows among any number of them, a bounded look at a time.

No filter needs an index of its own: the rows of a state, or of an owner, are read in their order,
in windows that are bounded in rows. A search that takes long returns what it has found, and where
it continues.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from inngest_outbox.outbox.model import Filter, Reach, Row, State
from inngest_outbox.outbox.ports import Inspector, Positions
from inngest_outbox.outbox.row_lookup import find_by_ulid

MOST_OF_PREFIX = 10_000
_GROWTH = 4
_CLOCK_SLACK_MS = 60_000  # rows are in the order of acceptance but for so much
MAX_COUNTED = 100_000
MAX_CANDIDATES = 10


@dataclass(frozen=True, slots=True)
class SearchPolicy:
    """The rows that statements go through, at first and at most, and when a search pauses.

    Up to `late_rows` in a row may have been stored more than a minute after their acceptance, as
    those of a long transaction are, without hiding what is below them.
    """

    first_window: int = 500
    window: int = 20_000
    late_rows: int = 20_000
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


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of matching rows. With `is_bounded` there are more, or there may be."""

    rows: int
    is_bounded: bool


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
        rows: list[Row] = []

        async def look(window: Filter) -> bool:
            limit = wanted.limit + 1 - len(rows)
            rows.extend(await self._inspector.rows(msgspec.structs.replace(window, limit=limit)))
            return len(rows) > wanted.limit

        paused = await self._walk(wanted, look)
        if len(rows) > wanted.limit:
            return Found(rows[:-1], rows[-2].seq)
        return Found(rows, paused.seq, paused.accepted_at_ms) if paused else Found(rows)

    async def count(self, wanted: Filter) -> Counted:
        """The number of matching rows, at most `wanted.limit`. Raises OutboxUnavailableError.

        `wanted` names no ids.
        """
        counted = 0

        async def look(window: Filter) -> bool:
            nonlocal counted
            limit = wanted.limit + 1 - counted
            counted += await self._inspector.count(msgspec.structs.replace(window, limit=limit))
            return counted > wanted.limit

        paused = await self._walk(wanted, look)
        return Counted(min(counted, wanted.limit), bool(paused) or counted > wanted.limit)

    async def _find_ids(self, wanted: Filter) -> Found:
        if wanted.ids is not None:
            return Found(await self._inspector.rows(wanted))
        anywhere = msgspec.structs.replace(wanted, state=None, limit=MOST_OF_PREFIX)
        found = await self._inspector.rows(anywhere)
        rows = [row for row in found if wanted.state in (None, row.state)]
        is_cut = len(rows) > wanted.limit or len(found) == MOST_OF_PREFIX
        return Found(rows[: wanted.limit], is_cut=is_cut)

    async def _walk(
        self, wanted: Filter, look: Callable[[Filter], Awaitable[bool]]
    ) -> Reach | None:
        """Look at window after window until `look` says that it is enough.

        Returns where the walk paused, None when all was gone through or it was enough.
        """
        if wanted.of_reason and wanted.state is None:
            wanted = msgspec.structs.replace(wanted, state=State.DEAD)
        until = self._clock() + self._policy.budget_seconds
        before = await self._start(wanted)
        size, old_rows = self._policy.first_window, 0
        while True:
            reach = await self._reach(wanted, size, before)
            if await look(_window(wanted, before, reach)) or reach is None or reach.is_last:
                return None
            old_rows = old_rows + size if _is_before(wanted, reach.accepted_at_ms) else 0
            if old_rows > self._policy.late_rows:
                return None
            before = reach.seq
            if self._clock() >= until:
                return reach
            is_first = size == self._policy.first_window
            if is_first and wanted.owner is not None and await self._are_few(wanted, before):
                await look(msgspec.structs.replace(wanted, before_seq=before))
                return None
            if not wanted.payload_part:  # payloads of a window are read whole
                size = min(size * _GROWTH, self._policy.window)

    async def _reach(self, wanted: Filter, size: int, before: int | None) -> Reach | None:
        if wanted.owner is not None:
            return await self._positions.reach(None, size, before, wanted.owner)
        return await self._positions.reach(wanted.state, size, before)

    async def _are_few(self, wanted: Filter, before: int) -> bool:
        """True when a window holds the rows of all owners in the wanted state."""
        window = self._policy.window
        return (
            wanted.state is not None
            and await self._positions.reach(wanted.state, window, before) is None
        )

    async def _start(self, wanted: Filter) -> int | None:
        if wanted.until_ms is None:
            return wanted.before_seq
        latest = await self._positions.seq_at(wanted.until_ms + _CLOCK_SLACK_MS)
        return latest if wanted.before_seq is None else min(latest, wanted.before_seq)


def _window(wanted: Filter, before: int | None, reach: Reach | None) -> Filter:
    """The filter in a window: above a `seq` always where the rows are an owner's."""
    last = None if wanted.owner is None else 0
    after = reach.seq - 1 if reach else last
    return msgspec.structs.replace(wanted, before_seq=before, after_seq=after)


def _is_before(wanted: Filter, reached_ms: int) -> bool:
    return wanted.since_ms is not None and reached_ms < wanted.since_ms - _CLOCK_SLACK_MS


class Listing(msgspec.Struct, frozen=True, gc=False):
    """Rows, newest first, as they were found.

    `total` rows match below the cursor, if one was given; more than `total` where `is_bounded`.
    """

    found: Found
    total: int
    is_bounded: bool

    @property
    def words(self) -> str:
        """The number of shown rows, as text: "20 of 1,200"."""
        more = "more than " if self.is_bounded else ""
        return f"{len(self.found.rows):,} of {more}{self.total:,}"


async def list_rows(search: Search, counting: Search, wanted: Filter) -> Listing:
    """The rows that match, and how many match in all, counted up to 100,000 by `counting`."""
    found = await search.find(wanted)
    shown = len(found.rows)
    if found.next_seq is None or found.paused_at_ms is not None:
        return Listing(found, shown, is_bounded=found.next_seq is not None)
    limit = max(MAX_COUNTED - shown, 0)
    rest = await counting.count(
        msgspec.structs.replace(wanted, before_seq=found.next_seq, limit=limit)
    )
    return Listing(found, shown + rest.rows, rest.is_bounded)


class FoundIds(msgspec.Struct, frozen=True, gc=False):
    """The meaning of given ids. `rows` are the events, in the order in which they were given.

    `unknown` are those that no event's id begins with. `ambiguous` are those that more than one id
    begins with, each with its newest events: at most 11, where 11 stands for "more than 10".
    """

    rows: tuple[Row, ...]
    unknown: tuple[str, ...]
    ambiguous: tuple[tuple[str, tuple[Row, ...]], ...]


async def find_ids(inspector: Inspector, given: Sequence[str]) -> FoundIds:
    """The events that these ids, beginnings of ids, or ids in Inngest name.

    A whole id names only itself, and an empty one names none.
    """
    whole = await inspector.rows(Filter(ids=tuple(given), limit=len(given)))
    known = {row.id: row for row in whole}
    rows: dict[str, Row] = {}
    unknown: list[str] = []
    ambiguous: list[tuple[str, tuple[Row, ...]]] = []
    for one in dict.fromkeys(given):
        found = [known[one]] if one in known else await _beginning_with(inspector, one)
        if not found:
            unknown.append(one)
        elif len(found) > 1:
            ambiguous.append((one, tuple(found)))
        else:
            rows[found[0].id] = found[0]
    return FoundIds(tuple(rows.values()), tuple(unknown), tuple(ambiguous))


async def _beginning_with(inspector: Inspector, prefix: str) -> list[Row]:
    if not prefix:
        return []
    found = await inspector.rows(Filter(id_prefix=prefix, limit=MAX_CANDIDATES + 1))
    in_inngest = None if found else await find_by_ulid(inspector, prefix)
    return [in_inngest] if in_inngest else found
