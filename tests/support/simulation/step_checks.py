"""What must hold after each commit of a history: exact counts, leases that end, bounded memory.

The tables are read on the writing connection between two transactions, so that nothing is under
way in them. What a look costs decides how often it is done.
"""

from __future__ import annotations

import gc
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from inngest_outbox.outbox.sqlite.appends import Append
from inngest_outbox.outbox.sqlite.commit import Group
from inngest_outbox.outbox.sqlite.store import SqliteOutbox

OWNERS_EVERY = 50
BYTES_EVERY = 500
MEMORY_EVERY = 500
MOST_WAIT_SECONDS = 120.0
LATE_LEASE_SECONDS = 2.5
# What the service's objects hold without work, and for each event that waits or is on its way.
MOST_ITEMS = 1_000
ITEMS_FOR_EACH = 12

COUNTS = """
SELECT * FROM (SELECT count(*), max(due_at_ms) FROM outbox_ready),
              (SELECT count(*), min(lease_until_ms), max(lease_until_ms) FROM outbox_claims)
"""
PLACES = """
SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_ready)
     + (SELECT count(*) FROM outbox_claims) + (SELECT count(*) FROM outbox_sent)
     + (SELECT count(*) FROM outbox_done)
"""
OWNERS = """
SELECT owner, count(*) FROM (SELECT seq FROM outbox_ready UNION ALL SELECT seq FROM outbox_claims)
CROSS JOIN outbox USING (seq) GROUP BY owner
"""
BYTES = "SELECT owner, sum(length(payload)) FROM outbox GROUP BY owner"
BAD_DEAD = """
SELECT event_id FROM outbox_done CROSS JOIN outbox USING (seq) WHERE dead = 1 AND name = ?1 LIMIT 1
"""


class StepChecks:
    """Looks at `outbox` after each of its commits, and calls `broken` with what is wrong.

    `parts` are the other objects of the service whose memory must stay bounded. An event named
    `good` must never be dead.
    """

    def __init__(
        self,
        outbox: SqliteOutbox,
        parts: Sequence[object],
        good: str,
        broken: Callable[[str], None],
    ) -> None:
        self._outbox = outbox
        self._parts = parts
        self._good = good
        self._broken = broken
        self._writer = writer = outbox.writer
        self._appends = writer._appends
        self._open: dict[int, Append] = {}
        self._steps = 0
        self._append, writer.append = writer.append, self._appended  # type: ignore[method-assign]
        self._answer, writer._answer = writer._answer, self._answered  # type: ignore[method-assign]
        for name in ("committed", "failed"):
            self._forget_after(name)

    def _forget_after(self, name: str) -> None:
        """Events are under way until they are committed or refused."""
        ended = getattr(self._appends, name)

        def forgetting(items: Sequence[Append], *others: Any) -> None:
            ended(items, *others)
            for item in items:
                self._open.pop(id(item), None)

        setattr(self._appends, name, forgetting)

    def _appended(self, item: Append) -> Any:
        self._open[id(item)] = item
        return self._append(item)

    def _answered(self, group: Group, *results: Any) -> None:
        self._answer(group, *results)
        connection = self._outbox.commits._connection
        if connection is None:
            return
        try:
            self._look(connection._raw[0], group)
        except AssertionError as error:
            self._broken(str(error))

    def _look(self, tables: sqlite3.Connection, group: Group) -> None:
        self._steps += 1
        [(ready, due_at, claimed, first_end, last_end)] = tables.execute(COUNTS)
        under_way = sum(len(item.events) for item in self._open.values())
        total, rows = self._outbox.undelivered, ready + claimed
        assert total == rows + under_way, f"{total} count as undelivered: {rows} and {under_way}"
        claims = self._outbox.claims
        held = sum(map(len, claims.owners.values()))
        assert claims._abandoned or held == claimed, f"{held} rows are held: {claimed} claimed"
        now = claims._clock.now_ms()
        latest = now + MOST_WAIT_SECONDS * 1000
        assert (due_at or 0) <= latest, "a row is due far in the future"
        assert (last_end or 0) <= latest, "a lease ends far in the future"
        if claimed and group.claims:
            assert first_end >= now - LATE_LEASE_SECONDS * 1000, "a lease is over and its rows wait"
        if self._steps % OWNERS_EVERY == 0:
            self._look_at_owners(tables)
        if self._steps % MEMORY_EVERY == 0:
            items = items_of([self._outbox, *self._parts])
            most = MOST_ITEMS + ITEMS_FOR_EACH * (total + under_way)
            assert items <= most, f"{items} items are in memory, at most {most} may be"

    def _look_at_owners(self, tables: sqlite3.Connection) -> None:
        [(rows, places)] = tables.execute(PLACES)
        assert rows == places, f"{rows} rows are in {places} places"
        dead = tables.execute(BAD_DEAD, (self._good,)).fetchall()
        assert not dead, f"a good event is dead: {dead}"
        counted, found = self._outbox._counts, Counter(dict(tables.execute(OWNERS)))
        for item in self._open.values():
            found[item.events[0].owner] += len(item.events)
        assert counted._pending == found, f"owners count {counted._pending}: {found}"
        if self._steps % BYTES_EVERY == 0 and self._outbox._bytes_count.is_done:
            found = Counter(dict(tables.execute(BYTES)))
            for item in self._open.values():
                found[item.events[0].owner] += sum(len(one.payload) for one in item.events)
            assert counted._bytes == found, f"owners' bytes are {counted._bytes}: {found}"


def items_of(roots: Iterable[object]) -> int:
    """How many items the containers hold that these objects of the service lead to."""
    seen, left, items = set[int](), list(roots), 0
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (dict, list, set, frozenset, tuple, deque)):
            items += len(one)
        elif not type(one).__module__.startswith("service."):
            continue
        left += gc.get_referents(one)
    return items
