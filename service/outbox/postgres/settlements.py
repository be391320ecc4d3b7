"""Settlements on PostgreSQL: one statement for the rows of one claim.

The holder of the claim's row lock decides where its rows go. The settlement's changes of the counts
are written to `outbox_changes` in the same commit.
"""

from __future__ import annotations

from typing import Any

from service.outbox.model import Settlement
from service.outbox.storable import storable

# Settles rows of one claim; other rows stay under it. Returns how many named rows were not under
# the claim, whether any row is due at once, and whether the claim is over. A statement that is
# repeated because its answer was lost finds its rows no longer under the claim if it had run.
SETTLE = """
WITH held AS MATERIALIZED (
    SELECT * FROM outbox_claims WHERE claim = %(claim)s FOR UPDATE
), member AS MATERIALIZED (
    SELECT u.seq, u.attempts, u.sends + 1 AS sends, u.isolated,
           coalesce(u.first_sent_at_ms, held.claimed_at_ms) AS first_sent_at_ms,
           CASE WHEN u.seq = ANY(held.express) THEN u.seq END AS express_seq
    FROM held, unnest(seqs, attempts, sends, isolated, first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
), delivered AS (
    SELECT DISTINCT seq FROM unnest(%(delivered)s::bigint[]) AS d(seq)
), sent AS (
    SELECT DISTINCT seq FROM unnest(%(sent)s::bigint[]) AS s(seq)
), retry AS (
    SELECT * FROM unnest(%(retry)s::bigint[], %(retry_delays)s::float8[],
        %(retry_attempts)s::integer[], %(retry_isolated)s::boolean[], %(retry_notes)s::text[]
    ) AS a(seq, delay_seconds, attempts, isolated, note)
), dead AS (
    SELECT * FROM unnest(%(dead)s::bigint[], %(dead_attempts)s::integer[],
        %(dead_reasons)s::text[], %(dead_details)s::text[]) AS d(seq, attempts, reason, detail)
), named AS MATERIALIZED (
    SELECT seq FROM delivered UNION SELECT seq FROM sent UNION SELECT seq FROM retry
    UNION SELECT seq FROM dead
), now AS MATERIALIZED (
    SELECT greatest(clock_timestamp(), due_from, isolated_from) AS at,
           floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at_ms, sent_from
    FROM outbox_mark
), put_done AS (
    INSERT INTO outbox_done (seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, dead,
                             reason, detail)
    SELECT m.seq, at_ms, m.first_sent_at_ms, m.attempts + 1, m.sends, m.isolated, false, NULL, NULL
    FROM member m JOIN delivered USING (seq), now
    UNION ALL
    SELECT m.seq, at_ms, m.first_sent_at_ms, dead.attempts, m.sends, m.isolated, true, reason,
        detail
    FROM member m JOIN dead USING (seq), now
    RETURNING seq, dead
), put_sent AS (
    INSERT INTO outbox_sent (seq, sent_at_ms, first_sent_at_ms, attempts, sends, isolated)
    SELECT m.seq, greatest(at_ms, sent_from), m.first_sent_at_ms, m.attempts + 1, m.sends,
           m.isolated
    FROM member m JOIN sent USING (seq), now
    RETURNING seq
), put_ready AS (
    INSERT INTO outbox_ready (seq, due_at, first_sent_at_ms, attempts, sends, payload_bytes,
                              isolated, express_seq)
    SELECT m.seq, at + make_interval(secs => greatest(0, delay_seconds)), m.first_sent_at_ms,
           retry.attempts, m.sends, octet_length(o.payload), retry.isolated,
           m.express_seq
    FROM member m JOIN retry USING (seq)
    CROSS JOIN LATERAL (SELECT * FROM outbox o WHERE o.seq = m.seq OFFSET 0) AS o, now
), put_notes AS (
    INSERT INTO outbox_notes (seq, at_ms, note)
    SELECT seq, at_ms, note FROM member JOIN retry USING (seq), now WHERE note IS NOT NULL
), settled AS MATERIALIZED (
    SELECT seq FROM put_done UNION ALL SELECT seq FROM put_sent
), by_owner AS (
    SELECT owner, count(*) AS rows
    FROM settled s CROSS JOIN LATERAL (
        SELECT owner FROM outbox o WHERE o.seq = s.seq OFFSET 0) AS o
    GROUP BY owner
), changed AS (
    INSERT INTO outbox_changes (owners, pending, delivered, dead, sent)
    SELECT array_agg(owner), array_agg(-rows),
           (SELECT count(*) FROM put_done WHERE NOT dead),
           (SELECT count(*) FROM put_done WHERE dead), (SELECT count(*) FROM put_sent)
    FROM by_owner HAVING count(*) > 0
), rest AS MATERIALIZED (
    SELECT array_agg(u.seq) AS seqs, array_agg(u.attempts) AS attempts,
           array_agg(u.sends) AS sends, array_agg(u.isolated) AS isolated,
           array_agg(u.first_sent_at_ms) AS first_sent_at_ms
    FROM held, unnest(seqs, attempts, sends, isolated, first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
    WHERE u.seq NOT IN (SELECT seq FROM named) HAVING count(*) > 0
), kept AS (
    UPDATE outbox_claims c
    SET seqs = rest.seqs, attempts = rest.attempts, sends = rest.sends, isolated = rest.isolated,
        first_sent_at_ms = rest.first_sent_at_ms
    FROM rest WHERE c.claim = %(claim)s AND EXISTS (SELECT FROM held)
), emptied AS (
    DELETE FROM outbox_claims
    WHERE claim = %(claim)s AND EXISTS (SELECT FROM held) AND NOT EXISTS (SELECT FROM rest)
)
SELECT CASE WHEN %(repeated)s THEN 0 ELSE
           (SELECT count(*) FROM named WHERE seq NOT IN (SELECT seq FROM member)) END,
       EXISTS (SELECT FROM retry JOIN member USING (seq) WHERE delay_seconds <= 0),
       NOT EXISTS (SELECT FROM rest)
"""


def settle_values(settlement: Settlement) -> dict[str, Any]:
    """The parameters of SETTLE."""
    return {
        "claim": settlement.claim,
        "repeated": False,
        "delivered": list(settlement.delivered),
        "sent": list(settlement.sent),
        "retry": [retry.seq for retry in settlement.retry],
        "retry_delays": [float(retry.delay_seconds) for retry in settlement.retry],
        "retry_attempts": [retry.attempts for retry in settlement.retry],
        "retry_isolated": [retry.isolated for retry in settlement.retry],
        "retry_notes": [retry.note and storable(retry.note) for retry in settlement.retry],
        "dead": [dead.seq for dead in settlement.dead],
        "dead_attempts": [dead.attempts for dead in settlement.dead],
        "dead_reasons": [storable(dead.reason) for dead in settlement.dead],
        "dead_details": [storable(dead.detail) for dead in settlement.dead],
    }
