"""What operators change in the outbox on PostgreSQL: replay, discard, purge, pause.

Nothing here touches a row under a claim. A change, its counts and its audit row are in one commit.
A purge commits small pages, so that no transaction is long.
"""

from __future__ import annotations

import asyncio

from service.outbox.audit import Act, act_of
from service.outbox.model import DeliveryRecord, Named
from service.outbox.postgres.delivery import PostgresDelivery
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.partitions import PostgresPartitions
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import NOW_MS, filter_values
from service.outbox.postgres.trail import AUDITED_ACT, audited

# Of the rows with these ids, whose owner it is.
_NAMED = """
o.event_id = ANY(%(ids)s::text[]) AND (%(owner)s::text IS NULL OR o.owner = %(owner)s)
"""

# Dead rows become due with no attempts counted; delivered rows only when their state is named.
REPLAY = f"""
WITH picked AS (
    SELECT d.seq, d.dead, o.event_id, o.owner, octet_length(o.payload) AS payload_bytes
    FROM outbox_done d JOIN outbox o ON o.seq = d.seq
    WHERE (d.dead OR %(state)s::text IS NOT DISTINCT FROM 'delivered')
      AND (NOT d.dead OR coalesce(%(state)s::text, 'dead') = 'dead') AND {_NAMED}
    FOR UPDATE OF d SKIP LOCKED
), taken AS (
    DELETE FROM outbox_done WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
    RETURNING seq, sends, first_sent_at_ms
), put AS (
    INSERT INTO outbox_ready (seq, due_at, first_sent_at_ms, sends, payload_bytes)
    SELECT seq, (SELECT greatest(clock_timestamp(), due_from) FROM outbox_mark), first_sent_at_ms,
           sends, payload_bytes
    FROM taken JOIN picked USING (seq)
), noted AS (
    INSERT INTO outbox_notes (seq, at_ms, note)
    SELECT seq, {NOW_MS}, 'replayed by ' || %(actor)s::text FROM taken
), changed AS (
    INSERT INTO outbox_changes (owners, pending, delivered, dead)
    SELECT array_agg(owner), array_agg(rows), -sum(rows - dead), -sum(dead)
    FROM (SELECT owner, count(*) AS rows, count(*) FILTER (WHERE dead) AS dead
          FROM picked JOIN taken USING (seq) GROUP BY owner) AS o
    HAVING count(*) > 0
), audited AS (
    INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, {NOW_MS}, %(actor)s, 'replay', %(chosen)s,
           coalesce(json_agg(event_id ORDER BY seq DESC), '[]')::text FROM picked
)
SELECT event_id FROM picked ORDER BY seq DESC
"""

# Rows under a claim are not removed; SKIP LOCKED leaves out rows that are being claimed.
DISCARD = f"""
WITH waiting AS (
    SELECT r.seq, o.event_id, o.owner, r.payload_bytes, 'pending' AS state
    FROM outbox_ready r JOIN outbox o ON o.seq = r.seq
    WHERE coalesce(%(state)s::text, 'pending') = 'pending' AND {_NAMED}
      AND (NOT %(never_sent)s::boolean OR (r.sends = 0 AND r.first_sent_at_ms IS NULL))
    FOR UPDATE OF r SKIP LOCKED
), answered AS (
    SELECT s.seq, o.event_id, o.owner, octet_length(o.payload) AS payload_bytes, 'sent' AS state
    FROM outbox_sent s JOIN outbox o ON o.seq = s.seq
    WHERE s.seq = ANY(ARRAY(
        SELECT seq FROM outbox_sent WHERE sent_at_ms >= (SELECT sent_from FROM outbox_mark)))
      AND coalesce(%(state)s::text, 'sent') = 'sent' AND {_NAMED}
      AND NOT %(never_sent)s::boolean
    FOR UPDATE OF s SKIP LOCKED
), settled AS (
    SELECT d.seq, o.event_id, o.owner, octet_length(o.payload) AS payload_bytes,
           CASE WHEN d.dead THEN 'dead' ELSE 'delivered' END AS state
    FROM outbox_done d JOIN outbox o ON o.seq = d.seq
    WHERE (%(state)s::text IS NULL OR %(state)s::text IN ('delivered', 'dead'))
      AND (%(state)s::text IS NULL OR d.dead = (%(state)s::text = 'dead')) AND {_NAMED}
      AND NOT %(never_sent)s::boolean
    FOR UPDATE OF d SKIP LOCKED
), picked AS MATERIALIZED (
    TABLE waiting UNION ALL TABLE answered UNION ALL TABLE settled
), not_waiting AS (DELETE FROM outbox_ready WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), not_sent AS (DELETE FROM outbox_sent WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), not_done AS (DELETE FROM outbox_done WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), no_notes AS (DELETE FROM outbox_notes WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), gone AS (DELETE FROM outbox WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), changed AS (
    INSERT INTO outbox_changes (owners, pending, stored, stored_bytes, delivered, dead, sent)
    SELECT array_agg(owner), array_agg(-pending), array_agg(-stored), array_agg(-bytes),
           -sum(delivered), -sum(dead), -sum(sent)
    FROM (SELECT owner, count(*) AS stored, sum(payload_bytes) AS bytes,
                 count(*) FILTER (WHERE state = 'pending') AS pending,
                 count(*) FILTER (WHERE state = 'delivered') AS delivered,
                 count(*) FILTER (WHERE state = 'dead') AS dead,
                 count(*) FILTER (WHERE state = 'sent') AS sent
          FROM picked GROUP BY owner) AS o
    HAVING count(*) > 0
), audited AS (
    INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, {NOW_MS}, %(actor)s, 'discard', %(chosen)s,
           coalesce(json_agg(event_id ORDER BY seq DESC), '[]')::text FROM picked
)
SELECT event_id FROM picked ORDER BY seq DESC
"""

# One page of delivered rows that were settled long enough ago, from where the page before ended.
# Rows of the spared seqs stay.
PURGE = f"""
WITH picked AS (
    DELETE FROM outbox_done WHERE seq = ANY(ARRAY(
        SELECT seq FROM outbox_done
        WHERE NOT dead AND settled_at_ms >= %(from_ms)s
          AND settled_at_ms <= {NOW_MS} - %(older_than_ms)s::bigint
          AND (seq < %(spared_from)s OR seq >= %(spared_to)s)
        ORDER BY settled_at_ms LIMIT %(page)s FOR UPDATE SKIP LOCKED
    )) RETURNING seq, settled_at_ms
), no_notes AS (DELETE FROM outbox_notes WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), gone AS (
    DELETE FROM outbox WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
    RETURNING owner, octet_length(payload) AS payload_bytes
), changed AS (
    INSERT INTO outbox_changes (owners, stored, stored_bytes, delivered)
    SELECT array_agg(owner), array_agg(-stored), array_agg(-bytes),
           -(SELECT count(*) FROM picked)
    FROM (SELECT owner, count(*) AS stored, sum(payload_bytes) AS bytes
          FROM gone GROUP BY owner) AS o
    HAVING count(*) > 0
)
SELECT count(*), max(settled_at_ms) FROM picked
"""

_PURGE_PAGE = 500
_PURGE_PAUSE_SECONDS = 0.02


class PostgresRepairs:
    """Changes rows by operators' commands."""

    def __init__(
        self,
        pool: PostgresPool,
        wakeup: PostgresWakeup,
        delivery: PostgresDelivery,
        partitions: PostgresPartitions,
    ) -> None:
        self._pool = pool
        self._partitions = partitions
        self._wakeup = wakeup
        self._delivery = delivery
        self._purged_to_ms = 0
        self._spared = (0, 0)

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """The named dead rows become pending with no attempts counted; returns their ids."""
        given = {**filter_values(wanted.filter), **_audited(wanted, actor, act)}
        rows = await self._pool.ask(REPLAY, given, repeat_with=None)
        self._wakeup.rows_are_due()
        return [row[0] for row in rows]

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Remove the named rows that are not under a claim; returns their ids."""
        given = {**filter_values(wanted.filter), **_audited(wanted, actor, act)}
        rows = await self._pool.ask(DISCARD, given, repeat_with=None)
        return [row[0] for row in rows]

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago, in small pages; returns how many.

        `actor` None is the retention, which leaves no audit row. It drops whole partitions, and
        leaves alone the rows of those that it will drop.
        """
        if actor is None:
            dropped = await self._partitions.drop_expired(older_than_seconds)
            spared = await self._partitions.spared(older_than_seconds)
            if spared != self._spared:
                self._spared, self._purged_to_ms = spared, 0
            gone, self._purged_to_ms = await self._remove(
                older_than_seconds, self._purged_to_ms, spared
            )
            return dropped + gone
        gone, _ = await self._remove(older_than_seconds, 0, (0, 0))
        if gone:
            detail = f"{gone} delivered rows"
            await self._pool.run(AUDITED_ACT, audited("purge", actor=actor, detail=detail))
        return gone

    async def _remove(
        self, older_than_seconds: float, from_ms: int, spared: tuple[int, int]
    ) -> tuple[int, int]:
        """How many rows settled since `from_ms` are removed, and when the last of them was."""
        gone = 0
        while True:
            given = {
                "older_than_ms": int(older_than_seconds * 1000),
                "page": _PURGE_PAGE,
                "from_ms": from_ms,
                "spared_from": spared[0],
                "spared_to": spared[1],
            }
            [(count, last_ms)] = await self._pool.run(PURGE, given)
            gone += int(count)
            from_ms = last_ms or from_ms
            if count < _PURGE_PAGE:
                return gone, from_ms
            await asyncio.sleep(_PURGE_PAUSE_SECONDS)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery for every process; returns the delivery record."""
        return await self._delivery.set_paused(
            paused=paused, actor=actor, ask_now=ask_now, reason=reason
        )


def _audited(wanted: Named, actor: str, act: Act | None) -> dict[str, str]:
    act = act or act_of(wanted.filter)
    return {"actor": actor, "act": act.id, "chosen": act.chosen}
