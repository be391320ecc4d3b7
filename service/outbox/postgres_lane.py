"""The delivery lane's record on PostgreSQL: one row that every process reads and saves.

`revision` grows with every save, by any process. `paused_by` is the operator's alone: a save of the
lane keeps it, a pause keeps the lane's own fields. Instants stay in the database, callers get and
give seconds from now.
"""

from __future__ import annotations

from service.outbox.outbox import LaneRecord
from service.outbox.postgres_pool import PostgresPool

_FIELDS = """
state, reason, batch_window, failures,
greatest(0, extract(epoch FROM reopens_at - clock_timestamp()))::float8,
since_ms, rate, paused_by, revision
"""

LOAD_LANE = f"SELECT {_FIELDS} FROM outbox_lane"

# Keeps paused_by. The one row is there since the first migration.
SAVE_LANE = f"""
UPDATE outbox_lane SET
    state = %(state)s, reason = %(reason)s, batch_window = %(window)s, failures = %(failures)s,
    reopens_at = clock_timestamp() + make_interval(secs => %(reopens_in_seconds)s::float8),
    since_ms = %(since_ms)s, rate = %(rate)s, revision = revision + 1
RETURNING {_FIELDS}
"""

# Keeps the lane's own fields.
SET_PAUSED = f"""
WITH noted AS (
    INSERT INTO outbox_audit (at_ms, actor, action, detail)
    VALUES (floor(extract(epoch FROM clock_timestamp()) * 1000), %(actor)s, %(action)s, '')
)
UPDATE outbox_lane SET paused_by = %(paused_by)s, revision = revision + 1
RETURNING {_FIELDS}
"""


class PostgresLane:
    """Loads and saves the lane's record."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load(self) -> LaneRecord:
        """The record as last saved by any process; one that is open at first."""
        rows = await self._pool.run(LOAD_LANE)
        return LaneRecord(*rows[0])

    async def save(self, record: LaneRecord) -> LaneRecord:
        """Save the lane's own fields; returns what now stands."""
        rows = await self._pool.run(
            SAVE_LANE,
            {
                "state": record.state,
                "reason": record.reason,
                "window": record.window,
                "failures": record.failures,
                "reopens_in_seconds": max(0.0, record.reopens_in_seconds),
                "since_ms": record.since_ms,
                "rate": record.rate,
            },
        )
        return LaneRecord(*rows[0])

    async def set_paused(self, *, paused: bool, actor: str) -> LaneRecord:
        """Pause or resume; returns what now stands."""
        rows = await self._pool.run(
            SET_PAUSED,
            {
                "actor": actor,
                "action": "pause" if paused else "resume",
                "paused_by": actor if paused else None,
            },
        )
        return LaneRecord(*rows[0])
