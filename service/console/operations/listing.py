"""A page of rows, and of how many rows it is a part."""

from __future__ import annotations

import msgspec

from service.console.operations.search import Found, Search
from service.outbox.model import Filter

MAX_COUNTED = 100_000


class Listing(msgspec.Struct, frozen=True, gc=False):
    """Rows, newest first, as they were found.

    `total` rows match below the cursor, if one was given; more than `total` where `is_bounded`.
    """

    found: Found
    total: int
    is_bounded: bool

    @property
    def words(self) -> str:
        """How many are shown, as text: "20 of 1,200"."""
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
