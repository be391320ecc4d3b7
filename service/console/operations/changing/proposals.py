"""The dry run of a change of many rows."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from service.console.operations.changing.bulk import change_rows, late_rows
from service.console.operations.search import Found, Search
from service.outbox.audit import Act, chosen_by
from service.outbox.model import Filter, Row, State
from service.outbox.ports import Repairs

MAX_ROWS = 10_000


class Action(enum.StrEnum):
    """The changes that many rows can have."""

    REPLAY = "replay"
    DISCARD = "discard"


STATES = {
    Action.REPLAY: frozenset({State.DEAD}),
    Action.DISCARD: frozenset({State.PENDING, State.SENT, State.DELIVERED, State.DEAD}),
}


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
        self._changes = {Action.REPLAY: repairs.replay, Action.DISCARD: repairs.discard}

    async def propose(
        self, action: Action, wanted: Filter, *, now_ms: int, seen_ms: int | None = None
    ) -> Proposal:
        """The effect of `action` on the rows that match, at most 10,000.

        With `seen_ms` it leaves out rows that were accepted or settled later: they were not shown.
        Without it no row is left out so, whatever the store's clock says.
        """
        at_ms = now_ms if seen_ms is None else seen_ms
        found = await self._search.find(msgspec.structs.replace(wanted, limit=MAX_ROWS))
        seen = [row for row in found.rows if seen_ms is None or moved_at(row) <= seen_ms]
        rows = [row for row in seen if row.state in STATES[action]]
        return Proposal(
            action=action,
            wanted=wanted,
            rows=rows,
            seen_ms=at_ms,
            left_out=len(seen) - len(rows),
            has_more=_has_more(found),
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


def _has_more(found: Found) -> bool:
    return found.next_seq is not None or found.is_cut


def _lost(rows: Sequence[Row]) -> int:
    return sum(row.state is not State.DELIVERED for row in rows)
