"""Rows that Inngest has answered, until Inngest is known to hold their events."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Any, Self

from service.errors import OutboxUnavailableError
from service.outbox.inngest_id import InngestIds
from service.outbox.postgres.counts import READ_TOTALS
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import NOW_MS, meta_of
from service.outbox.sent_entry import SentEntry
from service.outbox.storable import storable

PREFIX = "SELECT inngest_id_prefix FROM outbox_meta"

# The sent rows are read by the time of their sending, and sorted: the order of seq begins with dead
# rows.
SENT = f"""
WITH waiting AS MATERIALIZED (
    SELECT seq, sent_at_ms, sends FROM outbox_sent
    WHERE sent_at_ms >= (SELECT sent_from FROM outbox_mark)
)
SELECT s.seq, o.event_id, o.accepted_at_ms,
       greatest(0, {NOW_MS} - s.sent_at_ms)::float8 / 1000, s.sends, o.inngest_id,
       o.wire_id, o.environment
FROM (
    SELECT * FROM waiting WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s
) AS s CROSS JOIN LATERAL (SELECT * FROM outbox WHERE outbox.seq = s.seq OFFSET 0) AS o
ORDER BY s.seq
"""

DELIVERED = f"""
SELECT d.seq, o.event_id, o.accepted_at_ms,
       greatest(0, {NOW_MS} - d.settled_at_ms)::float8 / 1000, d.sends, o.inngest_id,
       o.wire_id, o.environment
FROM (
    SELECT seq, settled_at_ms, sends FROM outbox_done
    WHERE NOT dead AND seq > %(after)s
      AND (%(within_ms)s::bigint IS NULL OR settled_at_ms > {NOW_MS} - %(within_ms)s::bigint)
    ORDER BY seq LIMIT %(limit)s
) AS d CROSS JOIN LATERAL (SELECT * FROM outbox WHERE outbox.seq = d.seq OFFSET 0) AS o
ORDER BY d.seq
"""

# Whether this process asks. A turn is written again only in its second half, because each write
# leaves a dead row.
MAY_ASK = """
WITH taken AS (
    UPDATE outbox_asker
    SET asker = %(asker)s,
        asks_until = statement_timestamp() + make_interval(secs => %(seconds)s::float8)
    WHERE asks_until < statement_timestamp()
       OR asker = %(asker)s
          AND asks_until < statement_timestamp() + make_interval(secs => %(seconds)s::float8 / 2)
    RETURNING 1
)
SELECT EXISTS (SELECT FROM taken) OR asker = %(asker)s AND asks_until >= statement_timestamp()
FROM outbox_asker
"""
STOP_ASKING = "UPDATE outbox_asker SET asks_until = '-infinity' WHERE asker = %(asker)s"
_TURN_SECONDS = 10.0

# Returns how many were still sent.
CONFIRM = f"""
WITH gone AS (
    DELETE FROM outbox_sent WHERE seq = ANY(%(seqs)s::bigint[]) RETURNING *
), done AS (
    INSERT INTO outbox_done (seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, dead)
    SELECT seq, {NOW_MS}, first_sent_at_ms, attempts, sends, isolated, false FROM gone
), changed AS (
    INSERT INTO outbox_changes (delivered, sent)
    SELECT count(*), -count(*) FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone
"""

# Returns how many were still sent. The lost answer does not count as an attempt.
RESEND = f"""
WITH gone AS (
    DELETE FROM outbox_sent WHERE seq = ANY(%(seqs)s::bigint[]) RETURNING *
), again AS MATERIALIZED (
    SELECT gone.*, o.owner, o.payload_bytes FROM gone CROSS JOIN LATERAL (
        SELECT owner, octet_length(payload) AS payload_bytes FROM outbox o
        WHERE o.seq = gone.seq OFFSET 0) AS o
), ready AS (
    INSERT INTO outbox_ready (seq, due_at, first_sent_at_ms, attempts, sends, payload_bytes,
                              isolated)
    SELECT seq, (SELECT greatest(clock_timestamp(), due_from, isolated_from) FROM outbox_mark),
           first_sent_at_ms, attempts - 1, sends, payload_bytes, isolated FROM again
), noted AS (
    INSERT INTO outbox_notes (seq, at_ms, note) SELECT seq, {NOW_MS}, %(note)s::text FROM again
), changed AS (
    INSERT INTO outbox_changes (owners, pending, sent)
    SELECT array_agg(owner), array_agg(rows), -sum(rows)
    FROM (SELECT owner, count(*) AS rows FROM again GROUP BY owner) AS by_owner HAVING count(*) > 0
)
SELECT count(*) FROM again
"""


class PostgresConfirmations:
    """Shows sent rows, confirms them or sends them again; an async context manager."""

    def __init__(self, pool: PostgresPool, wakeup: PostgresWakeup) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self._ids: InngestIds | None = None
        self._asker = uuid.uuid4().hex
        self._asks = False

    async def __aenter__(self) -> Self:
        [(prefix,)] = await self._pool.run(PREFIX)
        self._ids = InngestIds(bytes(prefix))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asks:
            with contextlib.suppress(OutboxUnavailableError):
                await self.stop_asking()

    @property
    def inngest_ids(self) -> InngestIds:
        """Derives the ULIDs of this outbox's rows."""
        if self._ids is None:
            raise RuntimeError("the outbox is not open")
        return self._ids

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """At most `limit` sent rows with a higher `seq`, in its order."""
        rows = await self._pool.ask(SENT, {"limit": limit, "after": after_seq}, often=True)
        return [SentEntry(*[*row[:5], meta_of(*row[5:])]) for row in rows]

    async def count_sent(self) -> int:
        """How many rows are sent."""
        rows = await self._pool.run(READ_TOTALS, {"seconds": 0})
        return int(rows[0][2])

    async def may_ask(self) -> bool:
        """Whether this process asks Inngest for all processes now; True keeps the turn for 10 s."""
        given = {"asker": self._asker, "seconds": _TURN_SECONDS}
        rows = await self._pool.run(MAY_ASK, given)
        self._asks = bool(rows[0][0])
        return self._asks

    async def stop_asking(self) -> None:
        """Let another process ask. Safe to repeat."""
        self._asks = False
        await self._pool.run(STOP_ASKING, {"asker": self._asker})

    async def confirm(self, seqs: Sequence[int]) -> int:
        """Sent rows become delivered, atomically; returns how many were still sent.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        rows = await self._pool.run(CONFIRM, {"seqs": list(seqs)})
        return int(rows[0][0])

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """Sent rows become pending, due now, with `note` in their history; returns how many were.

        Atomic and safe to repeat. Raises OutboxUnavailableError.
        """
        rows = await self._pool.run(RESEND, {"seqs": list(seqs), "note": storable(note)})
        if rows[0][0]:
            self._wakeup.rows_are_due()
        return int(rows[0][0])

    async def delivered(
        self, limit: int, after_seq: int = 0, *, within_seconds: float | None = None
    ) -> Sequence[SentEntry]:
        """At most `limit` delivered rows with a higher `seq`, in its order.

        `within_seconds` leaves out those that were settled longer ago.
        """
        within_ms = None if within_seconds is None else int(within_seconds * 1000)
        given: dict[str, Any] = {"limit": limit, "after": after_seq, "within_ms": within_ms}
        rows = await self._pool.ask(DELIVERED, given)
        return [SentEntry(*[*row[:5], meta_of(*row[5:])]) for row in rows]
