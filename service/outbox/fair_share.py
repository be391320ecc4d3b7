"""When an owner's rows fill the queue."""

from __future__ import annotations

from dataclasses import dataclass

EXPRESS_SHARE = 0.5
"""Of a claim: the rows of owners who have few waiting while others fill the queue."""


@dataclass(frozen=True, slots=True)
class FairShare:
    """The number of waiting rows from which an owner counts as filling the queue."""

    heavy_rows: int = 1000

    def is_crowded(self, heavy_total: int, total: int) -> bool:
        """Whether the rows of heavy owners are more than half of the queue."""
        return heavy_total * 2 > total
