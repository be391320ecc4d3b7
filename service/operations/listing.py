"""A page of rows, and of how many rows it is a part."""

from __future__ import annotations

import msgspec

from service.outbox.model import Filter, Row
from service.outbox.ports import Inspector

MAX_COUNTED = 100_000


class Listing(msgspec.Struct, frozen=True, gc=False):
    """Rows, newest first. `total` rows match; more than `total` where `is_bounded`."""

    rows: list[Row]
    total: int
    is_bounded: bool

    @property
    def words(self) -> str:
        """How many are shown, as text: "20 of 1,200"."""
        more = "more than " if self.is_bounded else ""
        return f"{len(self.rows):,} of {more}{self.total:,}"


async def list_rows(inspector: Inspector, wanted: Filter) -> Listing:
    """The rows that match, and how many match in all, counted up to 100,000."""
    rows = await inspector.rows(wanted)
    if len(rows) < wanted.limit:
        return Listing(rows, len(rows), is_bounded=False)
    bound = max(MAX_COUNTED, wanted.limit) + 1
    total = await inspector.count(msgspec.structs.replace(wanted, limit=bound))
    # Rows may have come or gone between the two reads.
    return Listing(rows, max(len(rows), min(total, bound - 1)), is_bounded=total == bound)
