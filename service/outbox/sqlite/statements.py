"""The statements that move an event between the tables of an SQLite outbox, and look for work.

An event's `seq` is in exactly one of outbox_ready, outbox_claims, outbox_sent and outbox_done; what
is taken from one is put into another in the same transaction. Each statement takes all its rows in
one step of SQLite: fetching row by row would switch the interpreter lock for each row.
`CROSS JOIN` fixes the order of the join, whatever SQLite estimates of the tables' sizes.
Where a statement is an `OfRows`, its first parameter is a `RowSet`.
"""

from __future__ import annotations

from service.outbox.sqlite.notes import noted
from service.outbox.sqlite.row_set import OfRows

# The oldest due rows that are not isolated. Rows whose delay is over come first: they have waited
# longer than what was appended meanwhile.
_OLDEST = """
SELECT * FROM (SELECT * FROM outbox_ready WHERE isolated = 0 AND due_at_ms > 0 AND due_at_ms <= ?1
               ORDER BY due_at_ms, seq LIMIT ?2)
UNION ALL
SELECT * FROM (SELECT * FROM outbox_ready WHERE isolated = 0 AND due_at_ms = 0
               ORDER BY seq LIMIT ?2)
LIMIT ?2
"""
_NEWEST = """
SELECT * FROM outbox_ready WHERE isolated = 0 AND due_at_ms = 0 AND seq > ?1
ORDER BY seq DESC LIMIT ?2
"""
# Few, and only while one owner's rows fill the queue.
_EXPRESS = """
SELECT * FROM outbox_ready WHERE express = 1 AND isolated = 0 AND due_at_ms = 0
ORDER BY seq LIMIT ?2
"""
_ISOLATED = """
SELECT * FROM outbox_ready WHERE isolated = 1 AND due_at_ms <= ?1 ORDER BY due_at_ms, seq LIMIT ?2
"""

# ?1 is now (for the newest: the seq after which rows are fresh; express rows have no use for it),
# ?2 how many. A JSON array of seqs, and the bytes of their payloads in all.
_PICK = "SELECT json_group_array(seq), total(payload_bytes) FROM ({rows})"
PICK_OLDEST = _PICK.format(rows=_OLDEST)
PICK_NEWEST = _PICK.format(rows=_NEWEST)
PICK_EXPRESS = _PICK.format(rows=_EXPRESS)
PICK_ISOLATED = _PICK.format(rows=_ISOLATED)

EXPRESS_WAITS = f"SELECT EXISTS ({_EXPRESS.replace('?2', '1')})"

# ?1 is a JSON array of seqs: their sizes, in the same order.
SIZES = """
SELECT json_group_array(payload_bytes) FROM json_each(?1) CROSS JOIN outbox_ready ON seq = value
"""

# ?2 is the claim, ?3 now, ?4 the end of the lease.
CLAIM_HOLD = OfRows.taking(
    """
INSERT INTO outbox_claims (seq, claim, claimed_at_ms, lease_until_ms, payload_bytes, express,
                           isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, ?2, ?3, ?4, payload_bytes, express, isolated, attempts, sends, first_sent_at_ms, history
FROM {rows}
""",
    "outbox_ready",
)
CLAIM_TAKE = OfRows.deleting("DELETE FROM outbox_ready WHERE {which}")

# What a claim gives, in one step: JSON arrays of entries and of their owners, and their payloads
# joined by commas.
CLAIM_READ = OfRows.taking(
    """
SELECT json_group_array(
           iif(sends = 0 AND attempts = 0 AND isolated = 0 AND meta IS NULL,
               json_array(seq, event_id, accepted_at_ms, user_id),
               json_array(seq, event_id, accepted_at_ms, user_id, attempts,
                          json(iif(isolated, 'true', 'false')), first_sent_at_ms, sends,
                          json(coalesce(meta, '{{}}'))))),
       json_group_array(owner), CAST(group_concat(payload, ',') AS BLOB)
FROM {rows} CROSS JOIN outbox USING (seq)
""",
    "outbox_claims",
)

# When the next delayed row is due or the next lease ends. `+?1`, because SQLite compares a bare ?1
# with the conditions of the partial indexes, and then prepares the statement anew for each value.
NEXT_DUE = """
SELECT min(at) FROM (
    SELECT min(due_at_ms) AS at FROM outbox_ready
    WHERE isolated = 0 AND due_at_ms > 0 AND due_at_ms > +?1
    UNION ALL
    SELECT min(due_at_ms) FROM outbox_ready WHERE isolated = 1 AND due_at_ms > +?1
    UNION ALL
    SELECT min(lease_until_ms) FROM outbox_claims)
"""

# ?2 is the claim, ?3 now.
SETTLE_DELIVERED = OfRows.taking(
    """
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends, first_sent_at_ms,
                         history)
SELECT seq, 0, ?3, isolated, attempts + 1, sends + 1, coalesce(first_sent_at_ms, claimed_at_ms),
       history
FROM {rows} WHERE claim = ?2
""",
    "outbox_claims",
)
SETTLE_SENT = OfRows.taking(
    """
INSERT INTO outbox_sent (seq, sent_at_ms, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, ?3, isolated, attempts + 1, sends + 1, coalesce(first_sent_at_ms, claimed_at_ms),
       history
FROM {rows} WHERE claim = ?2
""",
    "outbox_claims",
)

# ?1 is a JSON array of [seq, attempts, due_at_ms, isolated, note].
SETTLE_RETRY = f"""
INSERT INTO outbox_ready (seq, attempts, due_at_ms, isolated, payload_bytes, express, sends,
                          first_sent_at_ms, history)
SELECT seq, value ->> 1, value ->> 2, value ->> 3, payload_bytes, express, sends + 1,
       coalesce(first_sent_at_ms, claimed_at_ms),
       CASE WHEN value ->> 4 IS NULL THEN history ELSE {noted("?3", "value ->> 4")} END
FROM json_each(?1) CROSS JOIN outbox_claims ON seq = value ->> 0 WHERE claim = ?2
"""

# ?1 is a JSON array of [seq, attempts, reason, detail].
SETTLE_DEAD = """
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends, first_sent_at_ms,
                         history, reason, detail)
SELECT seq, 1, ?3, isolated, value ->> 1, sends + 1, coalesce(first_sent_at_ms, claimed_at_ms),
       history, value ->> 2, value ->> 3
FROM json_each(?1) CROSS JOIN outbox_claims ON seq = value ->> 0 WHERE claim = ?2
"""

SETTLE_RELEASE = OfRows.deleting("DELETE FROM outbox_claims WHERE {which} AND claim = ?2")

# A claim that no caller received: nothing of it was sent.
RELEASE_READY = """
INSERT INTO outbox_ready (seq, payload_bytes, express, isolated, attempts, sends, first_sent_at_ms,
                          history)
SELECT seq, payload_bytes, express, isolated, attempts, sends, first_sent_at_ms, history
FROM outbox_claims WHERE claim = ?1
"""
RELEASE_CLAIM = "DELETE FROM outbox_claims WHERE claim = ?1"

# Claims whose process or sender has ended: the rows are due again and may have been sent.
EXPIRE_READY = """
INSERT INTO outbox_ready (seq, sends, first_sent_at_ms, payload_bytes, express, isolated, attempts,
                          history)
SELECT seq, sends + 1, coalesce(first_sent_at_ms, claimed_at_ms), payload_bytes, express, isolated,
       attempts, history
FROM outbox_claims WHERE lease_until_ms <= ?1
"""
EXPIRE_CLAIMS = "DELETE FROM outbox_claims WHERE lease_until_ms <= ?1 RETURNING claim"

# The clock may have been set between two processes, so no delay outlives the process, unless a
# caller asked for it.
RECOVER_DUE = """
UPDATE outbox_ready SET due_at_ms = 0 WHERE held = 0 AND seq IN (
    SELECT seq FROM outbox_ready WHERE isolated = 0 AND due_at_ms > 0
    UNION ALL
    SELECT seq FROM outbox_ready WHERE isolated = 1 AND due_at_ms > 0)
"""
