"""Finds a row by any of its ids: the service's, Inngest's, or the one that its sender chose."""

from __future__ import annotations

import re
from typing import Protocol

from service.outbox.inngest_id import decode_ulid
from service.outbox.model import Filter, Row

_COUNTER_BITS = 32
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_is_ulid = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}").fullmatch


class RowById(Protocol):
    """Where a row is found by the service's id."""

    async def find(self, event_id: str) -> Row | None:
        """The row, None when there is none. Raises OutboxUnavailableError."""
        ...


class Rows(Protocol):
    """Where rows are searched."""

    async def rows(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first. Raises OutboxUnavailableError."""
        ...


class RowLookup:
    """Finds rows. An id that a sender chose names rows of that sender only."""

    def __init__(self, by_id: RowById, rows: Rows) -> None:
        self._by_id = by_id
        self._rows = rows

    async def find(self, event_id: str, owner: str) -> Row | None:
        """The row, None when there is none. Of two that `owner` named alike, the newer.

        Raises OutboxUnavailableError.
        """
        return (
            await self._by_id.find(event_id)
            or await self._by_ulid(event_id)
            or await self._first(Filter(alias=event_id, owner=owner, limit=1))
        )

    async def _by_ulid(self, text: str) -> Row | None:
        """The row whose ULID follows from its number: the ULID has the number's last 32 bits."""
        if not _is_ulid(text):
            return None
        low = decode_ulid(text) & _COUNTER_MASK
        newest = await self._first(Filter(limit=1))
        high = newest.seq >> _COUNTER_BITS if newest else 0
        for seq in {low | one << _COUNTER_BITS for one in (high, max(high - 1, 0))}:
            row = await self._first(Filter(after_seq=seq - 1, before_seq=seq + 1, limit=1))
            if row and row.inngest_id == text:
                return row
        return None

    async def _first(self, wanted: Filter) -> Row | None:
        found = await self._rows.rows(wanted)
        return found[0] if found else None
