"""Following an outbox: what was accepted and what changed between two looks.

A look reads the new rows and, by their ids, the rows that may still change. Both are bounded,
whatever the filter: of more rows, only the newest are shown. A row that changes twice between two
looks is shown once, in its later state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial

import msgspec

from inngest_outbox.console.operations.bulk import PAGE, pages
from inngest_outbox.console.operations.search import Search
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.parts import ReadParts
from inngest_outbox.outbox.ports import Inspector

MAX_FOLLOWED = 2000
MAX_NEW = 5000
# Concurrent requests may commit in another order than that of their rows' numbers.
_LATE_ROWS = 200
_LATE_NUMBERS, _MOST_ROWS = 5_000, 20_000  # of a look: before the last one, and in all
_NOT_DELIVERED = (State.DEAD, State.PENDING, State.SENT, State.DELIVERING)


class Change(msgspec.Struct, frozen=True, gc=False):
    """The state of one event as it was seen.

    `what` is `accepted`, the state that it is in now, or `gone` for a row that was removed; then
    `row` is as it was last seen.
    """

    what: str
    row: Row


class Tail:
    """Remembers what was seen. `wanted` is the filter for events; its ids and bounds do not count.

    With a state, only changes into it are shown.
    """

    def __init__(self, wanted: Filter) -> None:
        self._wanted = msgspec.structs.replace(wanted, state=None, limit=PAGE)
        self._state = wanted.state
        self._newest_seq = 0
        self._looked_to = 0
        self._late: OrderedDict[str, None] = OrderedDict()
        self._followed: OrderedDict[str, Row] = OrderedDict()

    async def begin(self, outbox: ReadParts, lines: int) -> list[Change]:
        """The newest rows as they are, at most `lines`, oldest first; then follow from here.

        What is not found within a second in a state is neither shown nor followed.
        """
        search = Search(outbox.inspector, outbox.positions)
        newest = self._newest_seq = self._looked_to = await _newest(outbox.inspector)
        there = partial(self._with, before_seq=newest + 1)  # the next look tells what comes now
        for state in _NOT_DELIVERED:
            waiting = await search.find(there(state=state, limit=MAX_FOLLOWED))
            for row in reversed(waiting.rows):
                self._follow(row)
        late = there(after_seq=newest - _LATE_ROWS, limit=_LATE_ROWS)
        for row in await outbox.inspector.rows(late):
            self._late[row.id] = None
        if not lines:
            return []
        shown = await search.find(there(state=self._state, limit=lines))
        return [Change(row.state.value, row) for row in reversed(shown.rows)]

    async def look(self, outbox: ReadParts) -> list[Change]:
        """The news since the look before, accepted and changed events in the order of acceptance.

        Raises OutboxUnavailableError; then nothing was seen.
        """
        newest = await _newest(outbox.inspector)
        fresh = await self._new_rows(outbox.inspector, await self._after(outbox, newest))
        known = {row.id: row for row in await self._again(outbox.inspector)}
        self._looked_to = newest
        return [*self._changes(known), *self._accepted(fresh)]

    async def _after(self, outbox: ReadParts, newest: int) -> int:
        """The number above which this look goes through rows."""
        late = self._looked_to - _LATE_NUMBERS
        after = max(0, late, self._newest_seq - _LATE_ROWS)
        if newest - after <= _MOST_ROWS:
            return after
        reach = await outbox.positions.reach(None, _MOST_ROWS)
        return max(after, reach.seq - 1) if reach else after

    async def _new_rows(self, inspector: Inspector, after: int) -> list[Row]:
        """The newest first, at most MAX_NEW."""
        rows: list[Row] = []
        before: int | None = None
        while len(rows) < MAX_NEW:
            page = await inspector.rows(self._with(after_seq=after, before_seq=before))
            rows += page
            if len(page) < PAGE:
                break
            before = page[-1].seq
        return rows

    async def _again(self, inspector: Inspector) -> list[Row]:
        ids = list(self._followed)
        rows: list[Row] = []
        for page in pages(ids):
            rows += await inspector.rows(Filter(ids=page, limit=PAGE))
        return rows

    def _changes(self, known: dict[str, Row]) -> Iterator[Change]:
        for event_id, before in list(self._followed.items()):
            now = known.get(event_id)
            if now is None:
                del self._followed[event_id]
                if self._state is None:
                    yield Change("gone", before)
                continue
            self._follow(now)
            if _has_changed(before, now) and self._state in (None, now.state):
                yield Change(now.state.value, now)

    def _accepted(self, fresh: list[Row]) -> Iterator[Change]:
        for row in reversed(fresh):
            if row.id in self._late:
                continue
            self._late[row.id] = None
            self._newest_seq = max(self._newest_seq, row.seq)
            self._follow(row)
            if self._state in (None, State.PENDING):
                yield Change("accepted", row)
            if row.state is not State.PENDING and self._state in (None, row.state):
                yield Change(row.state.value, row)
        while len(self._late) > MAX_NEW:
            self._late.popitem(last=False)

    def _follow(self, row: Row) -> None:
        if row.state is State.DELIVERED:
            self._followed.pop(row.id, None)
            return
        self._followed[row.id] = row
        if len(self._followed) > MAX_FOLLOWED:
            self._followed.popitem(last=False)

    def _with(self, **changes: object) -> Filter:
        return msgspec.structs.replace(self._wanted, **changes)


async def _newest(inspector: Inspector) -> int:
    """The number of the newest row, 0 when there is none."""
    rows = await inspector.rows(Filter(limit=1))
    return rows[0].seq if rows else 0


def _has_changed(before: Row, now: Row) -> bool:
    """A pending row that came back from a send has changed too."""
    return (before.state, before.sends, before.attempts) != (now.state, now.sends, now.attempts)
