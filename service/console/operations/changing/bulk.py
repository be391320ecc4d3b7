"""Finding and changing many rows by one command of an operator.

They are found in windows, so that no statement reads many. A change names ids in pages, so that it
never holds up posts, and it changes no row that was not shown before: a row whose state has changed
meanwhile is left alone. All pages are one act in the audit.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from service.console.operations.explain import past_horizon
from service.console.operations.search import Search
from service.outbox.audit import Act
from service.outbox.model import Filter, Named, Row, State

PAGE = 500
MOST_PER_MINUTE = 60 * PAGE  # a page a second


class Change(Protocol):
    """`replay` or `discard` of the Repairs."""

    async def __call__(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Change the rows that are named; returns their ids."""
        ...


async def find_all(search: Search, wanted: Filter, told: Callable[[int, int], None]) -> list[Row]:
    """All rows that match, at most `wanted.limit`, newest first, however long it takes.

    `told` gets how many are found, and the time in ms of the acceptance to which the search has
    gone, each time that the search pauses. Raises OutboxUnavailableError.
    """
    rows: list[Row] = []
    before = wanted.before_seq
    while True:
        limit = wanted.limit - len(rows)
        found = await search.find(msgspec.structs.replace(wanted, before_seq=before, limit=limit))
        rows += found.rows
        if found.paused_at_ms is None or len(rows) >= wanted.limit:
            return rows
        told(len(rows), found.paused_at_ms)
        before = found.next_seq


async def change_rows(
    change: Change,
    rows: Sequence[Row],
    *,
    actor: str,
    act: Act,
    told: Callable[[int, int], None] | None = None,
    per_minute: int | None = None,
) -> list[str]:
    """Change these rows where they still have their states; returns the ids of those changed.

    `told` gets after each page how many rows were gone through, and how many there are.
    `per_minute` is the rate, None: at once.
    """
    done: list[str] = []
    gone_through = 0
    step = math.ceil(per_minute / 60) if per_minute else PAGE
    for state in State:
        ids = [row.id for row in rows if row.state is state]
        for page in pages(ids, step):
            if per_minute and gone_through:
                await asyncio.sleep(step * 60 / per_minute)
            done += await change(Named(page, state), actor=actor, act=act)
            gone_through += len(page)
            if told:
                told(gone_through, len(rows))
    return done


async def change_ids(
    change: Change, ids: Sequence[str], state: State, *, actor: str, act: Act
) -> list[str]:
    """Change the rows with these ids that are in `state`; returns the ids of those changed."""
    done: list[str] = []
    for page in pages(ids):
        done += await change(Named(page, state), actor=actor, act=act)
    return done


def late_rows(rows: Iterable[Row], now_ms: int) -> int:
    """The number of rows that Inngest may have forgotten: another send may run them again."""
    return sum(past_horizon(row, now_ms) for row in rows)


def pages(ids: Sequence[str], size: int = PAGE) -> Iterator[tuple[str, ...]]:
    """The ids in their order, `size` at a time. One statement names PAGE of them at most."""
    size = min(size, PAGE)
    return (tuple(ids[start : start + size]) for start in range(0, len(ids), size))
