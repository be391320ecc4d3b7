"""The limits of an outbox, in all and for one owner; the same in every store."""

from __future__ import annotations

from dataclasses import dataclass

from inngest_outbox.errors import OutboxFullError, TooManyPendingError

RETRY_AFTER_SECONDS = 5

_OWNER_BYTES = "Your stored events have reached their limit in bytes. Try again later."
_ALL_BYTES = "The outbox has reached its limit in bytes."


Usage = tuple[int, int]
"""What an owner has: its pending and delivering rows, and the bytes of all its rows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most rows that may be pending or delivering, and the most bytes stored; None is no limit.

    Bytes are those of all payloads, of delivered and dead rows too: these stay for the retention.
    """

    max_pending: int
    max_pending_per_owner: int
    max_bytes: int | None = None
    max_bytes_per_owner: int | None = None

    def check(self, owner: Usage, everybody: Usage, rows: int, size: int) -> None:
        """Raise TooManyPendingError or OutboxFullError when so many rows and bytes have no room."""
        if owner[0] + rows > self.max_pending_per_owner:
            raise TooManyPendingError(retry_after_seconds=RETRY_AFTER_SECONDS)
        if everybody[0] + rows > self.max_pending:
            raise OutboxFullError(retry_after_seconds=RETRY_AFTER_SECONDS)
        limit = self.max_bytes_per_owner
        if limit is not None and owner[1] + size > limit:
            raise TooManyPendingError(_OWNER_BYTES, retry_after_seconds=RETRY_AFTER_SECONDS)
        limit = self.max_bytes
        if limit is not None and everybody[1] + size > limit:
            raise OutboxFullError(_ALL_BYTES, retry_after_seconds=RETRY_AFTER_SECONDS)


FAIR_SHARE = 0.5
"""Of a claim: the rows of owners who have few waiting while others fill the queue."""


@dataclass(frozen=True, slots=True)
class FairShare:
    """The number of waiting rows from which an owner counts as filling the queue."""

    noisy_rows: int = 1000

    def is_noisy(self, noisy_total: int, total: int) -> bool:
        """True if the rows of noisy owners are more than half of the queue."""
        return noisy_total * 2 > total
