"""The delivery record on PostgreSQL: one row that every process reads and saves.

`revision` grows with every save, by any process. A save keeps `paused_by`, which only an operator
changes; a pause keeps every other field. The database stores instants; callers get and give seconds
from now.
"""

from __future__ import annotations

from service.outbox.model import DeliveryRecord
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.trail import AUDITED_ACT, audited

DELIVERY_FIELDS = """
state, reason, batch_window, failures,
greatest(0, extract(epoch FROM reopens_at - clock_timestamp()))::float8,
since_ms, rate, paused_by, revision, destination, confirmation, pause_reason
"""

LOAD_DELIVERY = f"SELECT {DELIVERY_FIELDS} FROM outbox_delivery"

# Keeps paused_by. The one row is there since the first migration.
SAVE_DELIVERY = f"""
UPDATE outbox_delivery SET
    state = %(state)s, reason = %(reason)s, batch_window = %(window)s, failures = %(failures)s,
    reopens_at = clock_timestamp() + make_interval(secs => %(reopens_in_seconds)s::float8),
    since_ms = %(since_ms)s, rate = %(rate)s, revision = revision + 1,
    destination = %(destination)s, confirmation = %(confirmation)s
RETURNING {DELIVERY_FIELDS}
"""

# Keeps the delivery's own fields. An act that is in the audit changes nothing: the statement is
# repeated when its answer was lost, and others may have acted since.
SET_PAUSED = f"""
WITH noted AS ({AUDITED_ACT} RETURNING act)
UPDATE outbox_delivery SET paused_by = %(paused_by)s, revision = revision + 1,
    pause_reason = CASE WHEN %(paused_by)s::text IS NULL THEN '' ELSE %(detail)s END,
    reopens_at = CASE WHEN %(ask_now)s THEN clock_timestamp() ELSE reopens_at END
FROM noted RETURNING {DELIVERY_FIELDS}
"""


class PostgresDelivery:
    """Loads and saves the delivery record."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load(self) -> DeliveryRecord:
        """The record as last saved by any process; healthy at first."""
        rows = await self._pool.run(LOAD_DELIVERY)
        return DeliveryRecord(*rows[0])

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        """Save the breaker's fields and keep `paused_by`; returns the stored record."""
        rows = await self._pool.run(
            SAVE_DELIVERY,
            {
                "state": record.state,
                "reason": record.reason,
                "window": record.window,
                "failures": record.failures,
                "reopens_in_seconds": max(0.0, record.reopens_in_seconds),
                "since_ms": record.since_ms,
                "rate": record.rate,
                "destination": record.destination,
                "confirmation": record.confirmation,
            },
        )
        return DeliveryRecord(*rows[0])

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery, and with `ask_now` end a wait; returns the stored record."""
        rows = await self._pool.run(
            SET_PAUSED,
            {
                **audited("pause" if paused else "resume", actor=actor, detail=reason),
                "paused_by": actor if paused else None,
                "ask_now": ask_now,
            },
        )
        return DeliveryRecord(*rows[0]) if rows else await self.load()
