"""Finding and changing many rows by one command of an operator, and the dry run of it.

They are found in windows, so that no statement reads many. A change names ids in pages, so that it
never holds up posts, and it changes no row that was not shown before: a row whose state has changed
meanwhile is left alone. All pages are one act in the audit.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from inngest_outbox.console.operations.search import Search
from inngest_outbox.outbox.audit import Act, chosen_by
from inngest_outbox.outbox.event_ids import is_forgotten
from inngest_outbox.outbox.model import Filter, Named, Row, State
from inngest_outbox.outbox.ports import Repairs

PAGE = 500
PAGE_BYTES = 2 * 1024 * 1024  # what is discarded is overwritten, through the log of the file
MOST_PER_MINUTE = 60 * PAGE  # a page a second
MAX_ROWS = 10_000


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
    while True:
        found = await search.find(wanted)
        rows += found.rows
        left = wanted.limit - len(found.rows)
        if found.paused_at_ms is None or not left:
            return rows
        told(len(rows), found.paused_at_ms)
        wanted = msgspec.structs.replace(wanted, before_seq=found.next_seq, limit=left)


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
        alike = [row for row in rows if row.state is state]
        for page in _pages_of(alike, step, math.inf if per_minute else PAGE_BYTES):
            if per_minute and gone_through:
                await asyncio.sleep(step * 60 / per_minute)
            done += await change(Named(page, state), actor=actor, act=act)
            gone_through += len(page)
            if told:
                told(gone_through, len(rows))
    return done


def late_rows(rows: Iterable[Row], now_ms: int) -> int:
    """The number of rows that Inngest may have forgotten: another send may run them again."""
    return sum(is_forgotten(row.first_sent_at_ms, now_ms) for row in rows)


def pages(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The ids in their order, PAGE at a time: one statement names no more."""
    return (tuple(ids[start : start + PAGE]) for start in range(0, len(ids), PAGE))


def _pages_of(rows: Sequence[Row], size: int, max_bytes: float) -> Iterator[tuple[str, ...]]:
    """As `pages`, with at most `size` rows and so many bytes of payloads, but at least one row."""
    start = page_bytes = 0
    for at, row in enumerate(rows):
        page_bytes += row.payload_bytes
        if at > start and (at - start == min(size, PAGE) or page_bytes > max_bytes):
            yield tuple(one.id for one in rows[start:at])
            start, page_bytes = at, row.payload_bytes
    if rows:
        yield tuple(one.id for one in rows[start:])


class Action(enum.StrEnum):
    """The changes that many rows can have."""

    REPLAY = "replay"
    DISCARD = "discard"


STATES = {
    Action.REPLAY: frozenset({State.DEAD}),
    Action.DISCARD: frozenset({State.PENDING, State.SENT, State.DELIVERED, State.DEAD}),
}


def changes_of(repairs: Repairs) -> dict[Action, Change]:
    """The change that each action makes."""
    return {Action.REPLAY: repairs.replay, Action.DISCARD: repairs.discard}


def actions_on(state: State) -> list[Action]:
    """The actions that change an event in this state."""
    return [action for action in Action if state in STATES[action]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """The rows that a change would touch, as they were at `seen_ms`.

    `left_out` matched and can't be changed so. `has_more` says that more match than one change
    takes. `late` of the rows may run a second time, `lost` would never reach Inngest.
    """

    action: Action
    wanted: Filter
    rows: list[Row]
    seen_ms: int
    left_out: int
    has_more: bool
    late: int
    lost: int


class Proposals:
    """Makes dry runs, and carries them out."""

    def __init__(self, search: Search, repairs: Repairs) -> None:
        self._search = search
        self._changes = changes_of(repairs)

    async def propose(
        self, action: Action, wanted: Filter, *, now_ms: int, seen_ms: int | None = None
    ) -> Proposal:
        """The effect of `action` on the rows that match, at most 10,000.

        With `seen_ms` it leaves out rows that were accepted or settled later: they were not shown.
        Without it no row is left out so, also where the store's clock is ahead. A replay of what a
        filter without a state matches is one of dead rows.
        """
        if action is Action.REPLAY and wanted.ids is None and wanted.state is None:
            wanted = msgspec.structs.replace(wanted, state=State.DEAD)
        found = await self._search.find(msgspec.structs.replace(wanted, limit=MAX_ROWS))
        seen = [row for row in found.rows if seen_ms is None or moved_at(row) <= seen_ms]
        rows = [row for row in seen if row.state in STATES[action]]
        return Proposal(
            action=action,
            wanted=wanted,
            rows=rows,
            seen_ms=max([now_ms, *map(moved_at, rows)]) if seen_ms is None else seen_ms,
            left_out=len(seen) - len(rows),
            has_more=found.next_seq is not None or found.is_cut,
            late=late_rows(rows, now_ms) if action is Action.REPLAY else 0,
            lost=_lost(rows) if action is Action.DISCARD else 0,
        )

    async def carry_out(self, proposal: Proposal, act: Act, *, actor: str) -> list[str]:
        """Change the rows that are still as they were; returns the ids of those changed.

        All of it is one act in the audit. Raises OutboxUnavailableError: some may be changed.
        """
        change = self._changes[proposal.action]
        return await change_rows(change, proposal.rows, actor=actor, act=act)


def chosen(wanted: Filter) -> str:
    """For the audit, how an operator chose rows; without what only pages a search."""
    return chosen_by(msgspec.structs.replace(wanted, before_seq=None)) or "every row"


def moved_at(row: Row) -> int:
    """The time at which the row came into its state, as far as it is kept."""
    return row.settled_at_ms or row.accepted_at_ms


def _lost(rows: Sequence[Row]) -> int:
    return sum(row.state is not State.DELIVERED for row in rows)
