"""Ends claims without a settlement: their rows are due again.

A claim whose answer was lost is released as soon as the database answers again, or by its lease.
`first_sent_at_ms` and `sends` record that a row's bytes may have been sent.
"""

from __future__ import annotations

import time

from service.outbox.postgres.pool import PostgresPool

_BACK = """
), back AS (
    INSERT INTO outbox_ready (seq, due_at, first_sent_at_ms, attempts, sends, payload_bytes,
                              isolated, express_seq)
    SELECT u.seq, (SELECT greatest(clock_timestamp(), due_from, isolated_from) FROM mark),
           CASE WHEN %(sent)s THEN coalesce(u.first_sent_at_ms, gone.claimed_at_ms)
                ELSE u.first_sent_at_ms END,
           u.attempts, u.sends + CASE WHEN %(sent)s THEN 1 ELSE 0 END,
           octet_length(o.payload), u.isolated,
           CASE WHEN u.seq = ANY(gone.express) THEN u.seq END
    FROM gone, unnest(seqs, attempts, sends, isolated, first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
    CROSS JOIN LATERAL (SELECT * FROM outbox o WHERE o.seq = u.seq OFFSET 0) AS o
    RETURNING 1
)
SELECT count(*) FROM back
"""

# Makes the rows of these claims due; `sent` says that they may have been sent. Returns how many.
RELEASE = f"""
WITH mark AS MATERIALIZED (TABLE outbox_mark), gone AS (
    DELETE FROM outbox_claims WHERE claim = ANY(%(claims)s::text[])
    RETURNING *
{_BACK}"""

# Makes the rows due whose lease is over. Returns how many.
EXPIRE = f"""
WITH mark AS MATERIALIZED (TABLE outbox_mark), gone AS (
    DELETE FROM outbox_claims WHERE claim = ANY(ARRAY(
        SELECT claim FROM outbox_claims
        WHERE lease_until >= (SELECT lease_from FROM mark)
          AND lease_until <= (SELECT greatest(statement_timestamp(), lease_from) FROM mark)
        FOR UPDATE SKIP LOCKED
    )) RETURNING *
{_BACK}"""


class PostgresLeases:
    """The claims of this process, and those that it lost."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._held: dict[str, float] = {}
        self._lost: set[str] = set()

    def hold(self, claim: str, lease_seconds: float) -> None:
        """Note a claim of this process."""
        now = time.monotonic()
        self._held = {one: until for one, until in self._held.items() if until > now}
        self._held[claim] = now + lease_seconds

    def forget(self, claim: str) -> None:
        """Note that a claim is over."""
        self._held.pop(claim, None)

    def lose(self, claim: str) -> None:
        """Note that this process will not settle the claim; nothing of it was sent."""
        self.forget(claim)
        self._lost.add(claim)

    async def release_lost(self) -> int:
        """Release the lost claims; returns how many rows became due."""
        if not self._lost:
            return 0
        lost = list(self._lost)
        rows = await self._pool.run(RELEASE, {"claims": lost, "sent": False})
        self._lost.difference_update(lost)
        return int(rows[0][0])

    async def release_held(self) -> int:
        """Release all claims of this process, as if sent; returns how many rows became due."""
        rows = await self._pool.run(RELEASE, {"claims": list(self._held), "sent": True})
        self._held.clear()
        return int(rows[0][0])

    async def expire(self) -> int:
        """Release all claims whose lease is over; returns how many rows became due."""
        rows = await self._pool.run(EXPIRE, {"sent": True})
        return int(rows[0][0])
