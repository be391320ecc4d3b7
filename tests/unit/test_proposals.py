"""What a dry run of a change is about: the rows that were shown."""

from __future__ import annotations

from service.console.operations.bulk import Action, Proposal, Proposals
from service.console.operations.search import Found
from service.outbox.event import Event
from service.outbox.model import Filter, Row, State
from tests.support.memory_outbox import MemoryOutbox

NOW = 1_000.0


class Finds:
    """A search that finds these rows."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    async def find(self, wanted: Filter) -> Found:
        return Found(self._rows[: wanted.limit])


async def proposed(settled_at: float, *, seen_ms: int | None) -> Proposal:
    """Of a dead row that was settled then, in the time of the store's clock."""
    outbox = MemoryOutbox(lambda: NOW)
    row = outbox.rows.append(Event("e-1", "n", "u-1", "u-1", 0, b"{}"))
    outbox.rows.put(row, State.DEAD)
    row.settled_at = settled_at
    proposals = Proposals(Finds([row.row(NOW)]), outbox.repairs)  # type: ignore[arg-type]
    return await proposals.propose(
        Action.REPLAY, Filter(limit=10), now_ms=int(NOW * 1000), seen_ms=seen_ms
    )


async def test_what_was_settled_after_it_was_shown_is_left_alone() -> None:
    seen_ms = int(NOW * 1000) - 10
    assert (await proposed(NOW, seen_ms=seen_ms)).rows == []
    assert len((await proposed(NOW - 0.01, seen_ms=seen_ms)).rows) == 1


async def test_a_first_dry_run_has_what_was_settled_while_it_looked() -> None:
    """And so what a store settled whose clock is ahead of this process's."""
    assert len((await proposed(NOW + 5, seen_ms=None)).rows) == 1
