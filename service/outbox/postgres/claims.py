"""Claims on PostgreSQL: one statement takes due rows and keeps them under a lease.

A claim deletes its rows from `outbox_ready` and keeps them in one row of `outbox_claims`, so an
event is never in both. Leases and due times are read from the database's clock only. `=
ANY(ARRAY(...))` and `LATERAL ... OFFSET 0` replace joins, for which the planner may read a whole
table when its statistics are old. `statement_timestamp()` can bound an index scan,
`clock_timestamp()` can't.
"""

from __future__ import annotations

from service.outbox.fair_share import EXPRESS_SHARE
from service.outbox.model import ClaimRequest

# Takes due rows: the oldest, a share of the newest, or one that must be alone. SKIP LOCKED leaves
# out rows that another process is claiming. The byte budgets always let one row pass; one that is
# larger than the budget of the oldest takes of that of the newest. Reads begin at the marks, and
# the oldest new rows are searched in a window of seq, so that a claim reads few dead rows. Its time
# is never before the marks.
_CLAIM = """
WITH mark AS MATERIALIZED (
    SELECT ready_from, due_from, isolated_from,
           CASE WHEN %(newest_of_all)s THEN ready_from ELSE greatest(ready_from, safe_seq) END
               AS newest_from,
           greatest(statement_timestamp(), due_from, isolated_from) AS now
    FROM outbox_mark
), first_isolated AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE isolated AND due_at IS NOT NULL AND due_at >= (SELECT isolated_from FROM mark)
      AND due_at <= (SELECT now FROM mark)
    ORDER BY due_at LIMIT CASE WHEN %(isolated)s = 'first' THEN 1 ELSE 0 END
    FOR UPDATE SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM first_isolated) THEN 0 ELSE %(oldest)s END AS oldest,
           CASE WHEN EXISTS (SELECT FROM first_isolated) THEN 0 ELSE %(newest)s END AS newest
{express}), newest AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE due_at IS NULL AND seq >= (SELECT newest_from FROM mark)
    ORDER BY seq DESC LIMIT (SELECT newest FROM wanted)
    FOR UPDATE SKIP LOCKED
), delayed AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE NOT isolated AND due_at IS NOT NULL AND due_at >= (SELECT due_from FROM mark)
      AND due_at <= (SELECT now FROM mark)
    ORDER BY due_at LIMIT (SELECT oldest + newest FROM wanted)
    FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE due_at IS NULL AND seq >= (SELECT ready_from FROM mark)
      AND seq < (SELECT ready_from FROM mark) + %(window)s
    ORDER BY seq LIMIT (SELECT oldest + newest FROM wanted)
    FOR UPDATE SKIP LOCKED
), oldest AS MATERIALIZED (
    SELECT seq, payload_bytes FROM (TABLE delayed UNION ALL TABLE fresh) AS due
    WHERE seq NOT IN (SELECT seq FROM {ahead})
    ORDER BY seq LIMIT (SELECT oldest + newest - (SELECT count(*) FROM {ahead}) FROM wanted)
), last_isolated AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE isolated AND due_at IS NOT NULL AND due_at >= (SELECT isolated_from FROM mark)
      AND due_at <= (SELECT now FROM mark)
    ORDER BY due_at
    LIMIT CASE WHEN %(isolated)s = 'last' AND NOT EXISTS (SELECT FROM oldest)
                    AND NOT EXISTS (SELECT FROM {ahead}) THEN 1 ELSE 0 END
    FOR UPDATE SKIP LOCKED
), picked AS (
    SELECT seq FROM first_isolated
    UNION ALL SELECT seq FROM last_isolated
{express_picked}    UNION ALL SELECT seq FROM (
        SELECT seq, payload_bytes, sum(payload_bytes) OVER (ORDER BY seq) AS running FROM oldest
    ) AS o WHERE running {beside} <= %(oldest_bytes)s OR running = payload_bytes {alone}
    UNION ALL SELECT seq FROM (
        SELECT seq, payload_bytes, sum(payload_bytes) OVER (ORDER BY seq DESC) AS running
        FROM newest
    ) AS n WHERE running + greatest(0, {largest} - %(oldest_bytes)s) <= %(newest_bytes)s
              OR running = payload_bytes AND NOT EXISTS (SELECT FROM oldest) {none_express}
), taken AS (
    DELETE FROM outbox_ready WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
    RETURNING seq, attempts, sends, isolated, first_sent_at_ms, express_seq
), held AS (
    INSERT INTO outbox_claims
        (claim, lease_until, claimed_at_ms, seqs, attempts, sends, isolated, first_sent_at_ms,
         express)
    SELECT %(claim)s,
           greatest(clock_timestamp(), (SELECT lease_from FROM outbox_mark))
               + make_interval(secs => %(lease_seconds)s),
           floor(extract(epoch FROM clock_timestamp()) * 1000),
           array_agg(seq), array_agg(attempts), array_agg(sends), array_agg(isolated),
           array_agg(first_sent_at_ms), array_remove(array_agg(express_seq), NULL)
    FROM taken HAVING count(*) > 0
)
SELECT t.seq, event_id, accepted_at_ms, user_id, attempts, isolated, first_sent_at_ms, sends,
       inngest_id, wire_id, environment, trace, payload
FROM taken t CROSS JOIN LATERAL (SELECT * FROM outbox o WHERE o.seq = t.seq OFFSET 0) AS o
ORDER BY t.seq
"""

_FIRST = "(SELECT payload_bytes FROM oldest ORDER BY seq LIMIT 1)"

CLAIM = _CLAIM.format(
    express="",
    ahead="newest",
    express_picked="",
    beside="",
    alone="",
    largest=f"coalesce({_FIRST}, 0)",
    none_express="",
)

_EXPRESS_BYTES = "(SELECT coalesce(sum(payload_bytes), 0) FROM express)"

# The same with a share for express rows. Where one of them and the oldest row do not fit together,
# it is the turn of one of the two.
CLAIM_EXPRESS = _CLAIM.format(
    express="""), express_new AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE due_at IS NULL AND express_seq >= (SELECT ready_from FROM mark)
    ORDER BY express_seq
    LIMIT CASE WHEN EXISTS (SELECT FROM first_isolated) THEN 0 ELSE %(express)s END
    FOR UPDATE SKIP LOCKED
), express_delayed AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE express_seq IS NOT NULL AND NOT isolated AND due_at >= (SELECT due_from FROM mark)
      AND due_at <= (SELECT now FROM mark)
    ORDER BY due_at
    LIMIT CASE WHEN EXISTS (SELECT FROM first_isolated) THEN 0 ELSE %(express)s END
    FOR UPDATE SKIP LOCKED
), express AS MATERIALIZED (
    SELECT seq, payload_bytes FROM (
        SELECT seq, payload_bytes, sum(payload_bytes) OVER (ORDER BY seq) AS running FROM (
            SELECT * FROM (TABLE express_new UNION ALL TABLE express_delayed) AS both_lanes
            ORDER BY seq LIMIT %(express)s
        ) AS found
    ) AS e WHERE running <= %(express_bytes)s OR running = payload_bytes AND %(express_turn)s
""",
    ahead="(SELECT seq FROM newest UNION SELECT seq FROM express) AS ahead",
    express_picked=f"""    UNION ALL SELECT seq FROM express
    WHERE %(express_turn)s OR coalesce({_FIRST} + {_EXPRESS_BYTES}, 0) <= %(oldest_bytes)s
""",
    beside=f"+ {_EXPRESS_BYTES}",
    alone="AND NOT (%(express_turn)s AND EXISTS (SELECT FROM express))",
    largest=f"greatest({_FIRST}, {_EXPRESS_BYTES})",
    none_express="AND NOT EXISTS (SELECT FROM express)",
)

# Seconds until the next delayed row is due, null without one; and whether new rows may lie beyond
# the window that claims look at.
NEXT_DUE = """
SELECT extract(epoch FROM least(
           (SELECT min(due_at) FROM outbox_ready
            WHERE due_at IS NOT NULL AND NOT isolated AND due_at >= mark.due_from),
           (SELECT min(due_at) FROM outbox_ready
            WHERE due_at IS NOT NULL AND isolated AND due_at >= mark.isolated_from
              AND %(isolated)s)
       ) - greatest(statement_timestamp(), due_from, isolated_from))::float8,
       (SELECT last_value FROM outbox_seq_seq) >= mark.ready_from + %(window)s
FROM outbox_mark AS mark
"""


def claim_values(
    wanted: ClaimRequest, claim: str, window: int, *, express_turn: bool = False
) -> dict[str, object]:
    """The parameters of CLAIM and CLAIM_EXPRESS."""
    newest = min(wanted.max_events, int(wanted.max_events * wanted.fresh_share))
    express = max(int(wanted.max_events * EXPRESS_SHARE), int(express_turn))
    return {
        "claim": claim,
        "lease_seconds": wanted.lease_seconds,
        "isolated": wanted.isolated.value,
        "oldest": wanted.max_events - newest,
        "newest": newest,
        "express": min(express, wanted.max_events - newest),
        "express_bytes": int(wanted.max_bytes * EXPRESS_SHARE),
        "express_turn": express_turn,
        "newest_of_all": newest == wanted.max_events,
        "oldest_bytes": int(wanted.max_bytes * (1 - wanted.fresh_share)),
        "newest_bytes": int(wanted.max_bytes * wanted.fresh_share),
        "window": window,
    }
