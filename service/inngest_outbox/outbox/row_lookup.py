"""Finds a row by any of its ids: the service's, Inngest's, or the one that its sender chose."""

from __future__ import annotations

from inngest_outbox.outbox.event_ids import own_id
from inngest_outbox.outbox.inngest_id import COUNTER_BITS, COUNTER_MASK, decode_ulid
from inngest_outbox.outbox.model import Filter, Row
from inngest_outbox.outbox.ports import Inspector, Intake


class RowLookup:
    """Finds rows. An id that a sender chose names rows of that sender only."""

    def __init__(self, by_id: Intake, rows: Inspector) -> None:
        self._by_id = by_id
        self._rows = rows

    async def find(self, event_id: str, owner: str) -> Row | None:
        """The row, None when there is none. Of two that `owner` named alike, the newer.

        An event that left under another id than its sender gave it is found by both.

        Raises OutboxUnavailableError.
        """
        return (
            await self._by_id.find(event_id)
            or await find_by_ulid(self._rows, event_id)
            or await _first(self._rows, Filter(alias=event_id, owner=owner, limit=1))
            or await _first(self._rows, Filter(alias=own_id(event_id, owner), owner=owner, limit=1))
        )


async def find_by_ulid(rows: Inspector, text: str) -> Row | None:
    """The row under this ULID in Inngest, None for other text. Raises OutboxUnavailableError."""
    try:
        low = decode_ulid(text) & COUNTER_MASK
    except ValueError:
        return None
    return await _numbered(rows, text, low) or await _first(rows, Filter(alias=text, limit=1))


async def _numbered(rows: Inspector, ulid: str, low: int) -> Row | None:
    """The row whose ULID follows from its number, of which `low` are the last 32 bits."""
    newest = await _first(rows, Filter(limit=1))
    if newest is None:
        return None
    high = newest.seq >> COUNTER_BITS
    for seq in {low | one << COUNTER_BITS for one in (high, max(high - 1, 0))}:
        row = await _first(rows, Filter(after_seq=seq - 1, before_seq=seq + 1, limit=1))
        if row and row.inngest_id == ulid:
            return row
    return None


async def _first(rows: Inspector, wanted: Filter) -> Row | None:
    found = await rows.rows(wanted)
    return found[0] if found else None
