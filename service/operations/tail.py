"""Following an outbox: what was accepted and what changed between two looks.

A look reads the new rows and, by their ids, the rows that may still change. Both are bounded: of
more rows, only the newest are shown. A row that changes twice between two looks is shown once, in
its later state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from service.outbox.model import Filter, Row, State
from service.outbox.ports import Inspector

MAX_FOLLOWED = 2000
MAX_NEW = 5000
_PAGE = 500
# Concurrent requests may commit in another order than that of their rows' numbers.
_LATE_ROWS = 200
_UNSETTLED = (State.DEAD, State.PENDING, State.SENT, State.DELIVERING)


class Change(msgspec.Struct, frozen=True, gc=False):
    """What was seen of one event.

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
        self._wanted = msgspec.structs.replace(wanted, state=None, limit=_PAGE)
        self._state = wanted.state
        self._newest_seq: int | None = None
        self._late: OrderedDict[str, None] = OrderedDict()
        self._followed: OrderedDict[str, Row] = OrderedDict()

    async def begin(self, inspector: Inspector, lines: int) -> list[Change]:
        """The newest rows as they are, at most `lines`, oldest first; then follow from here."""
        newest = await inspector.rows(Filter(limit=1))
        self._newest_seq = newest[0].seq if newest else 0
        for state in _UNSETTLED:
            waiting = self._with(state=state, limit=MAX_FOLLOWED)
            for row in reversed(await inspector.rows(waiting)):
                self._follow(row)
        late = self._with(after_seq=self._newest_seq - _LATE_ROWS, limit=_LATE_ROWS)
        for row in await inspector.rows(late):
            self._late[row.id] = None
        shown = self._with(state=self._state, limit=lines)
        rows = await inspector.rows(shown) if lines else []
        return [Change(row.state.value, row) for row in reversed(rows)]

    async def look(self, inspector: Inspector) -> list[Change]:
        """What was accepted and what changed since the look before, in the order of acceptance.

        Raises OutboxUnavailableError; then nothing was seen.
        """
        fresh = await self._new_rows(inspector)
        known = {row.id: row for row in await self._again(inspector)}
        return [*self._changes(known), *self._accepted(fresh)]

    async def _new_rows(self, inspector: Inspector) -> list[Row]:
        """The newest first, at most MAX_NEW."""
        after = max(0, (self._newest_seq or 0) - _LATE_ROWS)
        rows: list[Row] = []
        before: int | None = None
        while len(rows) < MAX_NEW:
            page = await inspector.rows(self._with(after_seq=after, before_seq=before))
            rows += page
            if len(page) < _PAGE:
                break
            before = page[-1].seq
        return rows

    async def _again(self, inspector: Inspector) -> list[Row]:
        ids = list(self._followed)
        rows: list[Row] = []
        for start in range(0, len(ids), _PAGE):
            page = tuple(ids[start : start + _PAGE])
            rows += await inspector.rows(Filter(ids=page, limit=_PAGE))
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
            self._newest_seq = max(self._newest_seq or 0, row.seq)
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


def _has_changed(before: Row, now: Row) -> bool:
    """A pending row that came back from a send has changed too."""
    return (before.state, before.sends, before.attempts) != (now.state, now.sends, now.attempts)
