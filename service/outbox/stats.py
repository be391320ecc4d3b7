"""The outbox in figures."""

from __future__ import annotations

import msgspec

from service.outbox.model import DeliveryRecord


class Stats(msgspec.Struct, frozen=True, gc=False):
    """The outbox in figures. `sent` rows were answered and are not confirmed.

    `oldest_pending_seconds` is the age of the oldest undelivered row, None without one;
    `oldest_due_seconds` the age of the oldest row that is due. Sizes are bytes, None where the
    store has no such file.
    """

    pending: int
    delivering: int
    delivered: int
    dead: int
    oldest_pending_seconds: float | None
    oldest_due_seconds: float | None
    delivery: DeliveryRecord | None
    database_bytes: int | None
    wal_bytes: int | None
    sent: int = 0
