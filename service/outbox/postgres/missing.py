"""Rows of which the event or the place is gone: only a damaged database has them."""

from __future__ import annotations

MISSING_ROWS = """
SELECT seq, coalesce(p.state, 'unknown') FROM outbox AS o FULL JOIN (
    SELECT seq, 'pending' AS state FROM outbox_ready
    UNION ALL
    SELECT unnest(seqs), 'delivering' FROM outbox_claims
    WHERE lease_until >= (SELECT lease_from FROM outbox_mark)
    UNION ALL
    SELECT seq, 'sent' FROM outbox_sent
    UNION ALL
    SELECT seq, CASE WHEN dead THEN 'dead' ELSE 'delivered' END FROM outbox_done
) AS p USING (seq)
WHERE o.event_id IS NULL OR p.state IS NULL ORDER BY seq
"""
