"""Correcting the counts after rows were written past them."""

from __future__ import annotations

# Counts every row and compares; the difference becomes a change. Returns how many owners' counts
# were wrong.
RECOUNT = """
WITH real AS (
    SELECT o.owner, count(w.seq) AS pending, count(*) AS stored,
           sum(octet_length(o.payload))::bigint AS bytes
    FROM outbox AS o LEFT JOIN (
        SELECT seq FROM outbox_ready
        UNION ALL SELECT unnest(seqs) FROM outbox_claims
    ) AS w USING (seq)
    GROUP BY o.owner
), said AS (
    SELECT owner, coalesce(sum(pending), 0)::bigint AS pending,
           coalesce(sum(stored), 0)::bigint AS stored, coalesce(sum(bytes), 0)::bigint AS bytes
    FROM (
        SELECT owner, pending, stored, stored_bytes AS bytes FROM outbox_by_owner
        UNION ALL
        SELECT u.owner, u.pending, u.stored, u.bytes
        FROM outbox_meta, outbox_changes AS c,
             unnest(owners, c.pending, c.stored, c.stored_bytes)
                 AS u(owner, pending, stored, bytes)
        WHERE no > changes_folded
    ) AS told GROUP BY owner
), wrong AS (
    SELECT * FROM (
        SELECT owner, coalesce(real.pending, 0) - coalesce(said.pending, 0) AS pending,
               coalesce(real.stored, 0) - coalesce(said.stored, 0) AS stored,
               coalesce(real.bytes, 0) - coalesce(said.bytes, 0) AS bytes
        FROM real FULL JOIN said USING (owner)
    ) AS compared WHERE (pending, stored, bytes) <> (0, 0, 0)
), done AS (
    SELECT count(*) FILTER (WHERE NOT dead) AS delivered, count(*) FILTER (WHERE dead) AS dead
    FROM outbox_done
), totals AS (
    SELECT m.delivered + coalesce(sum(c.delivered), 0)::bigint AS delivered,
           m.dead + coalesce(sum(c.dead), 0)::bigint AS dead,
           m.sent + coalesce(sum(c.sent), 0)::bigint AS sent
    FROM outbox_meta AS m LEFT JOIN outbox_changes AS c ON c.no > m.changes_folded
    GROUP BY m.delivered, m.dead, m.sent
), corrected AS (
    INSERT INTO outbox_changes (owners, pending, stored, stored_bytes, delivered, dead, sent)
    SELECT coalesce((SELECT array_agg(owner) FROM wrong), '{}'),
           coalesce((SELECT array_agg(pending) FROM wrong), '{}'),
           coalesce((SELECT array_agg(stored) FROM wrong), '{}'),
           coalesce((SELECT array_agg(bytes) FROM wrong), '{}'),
           done.delivered - totals.delivered, done.dead - totals.dead,
           (SELECT count(*) FROM outbox_sent) - totals.sent
    FROM done, totals
)
SELECT count(*) FROM wrong
"""
