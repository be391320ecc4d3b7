"""The statements that move an event between the tables of an SQLite outbox, and look for work.

An event's `seq` is in exactly one of `ready`, `claims` and `done`; what `sqlite_queue` takes from
one it puts into another in the same transaction. Each statement takes all its rows in one step of
SQLite: fetching row by row would hand the interpreter lock back and forth for each. `CROSS JOIN`
keeps the small side outside, whatever SQLite believes of the tables' sizes.
"""

from __future__ import annotations

# The oldest due rows that need not be alone: those without a delay come first.
_OLDEST = """
SELECT * FROM (SELECT * FROM ready WHERE isolated = 0 AND due_at = 0 ORDER BY seq LIMIT ?2)
UNION ALL
SELECT * FROM (SELECT * FROM ready WHERE isolated = 0 AND due_at > 0 AND due_at <= ?1
               ORDER BY due_at, seq LIMIT ?2)
LIMIT ?2
"""
_NEWEST = """
SELECT * FROM ready WHERE isolated = 0 AND due_at = 0 AND seq > ?1 ORDER BY seq DESC LIMIT ?2
"""
_SUSPECT = "SELECT * FROM ready WHERE isolated = 1 AND due_at <= ?1 ORDER BY due_at, seq LIMIT ?2"

# ?1 is now (for the newest: the seq after which rows are fresh), ?2 how many. A JSON array of seqs,
# and the bytes of their payloads in all.
_PICK = "SELECT json_group_array(seq), total(bytes) FROM ({rows})"
PICK_OLDEST = _PICK.format(rows=_OLDEST)
PICK_NEWEST = _PICK.format(rows=_NEWEST)
PICK_SUSPECT = _PICK.format(rows=_SUSPECT)

# ?1 is a JSON array of seqs: their sizes, in the same order.
SIZES = """
SELECT json_group_array(bytes) FROM json_each(?1) CROSS JOIN ready ON seq = value
"""

# ?1 is a JSON array of seqs, ?2 the claim, ?3 now, ?4 the end of the lease.
HOLD = """
INSERT INTO claims (seq, claim, claimed_at, lease_until,
                    bytes, isolated, attempts, sends, first_sent_at, history)
SELECT seq, ?2, ?3, ?4, bytes, isolated, attempts, sends, first_sent_at, history
FROM json_each(?1) CROSS JOIN ready ON seq = value
"""
TAKE = "DELETE FROM ready WHERE seq IN (SELECT value FROM json_each(?1))"

# What a claim gives, in one step: a JSON array of entries, and their payloads joined by commas.
READ = """
SELECT json_group_array(
           iif(sends = 0 AND attempts = 0 AND isolated = 0 AND trace IS NULL,
               json_array(seq, outbox.id, accepted_at, user_id),
               json_array(seq, outbox.id, accepted_at, user_id, trace, attempts,
                          json(iif(isolated, 'true', 'false')), first_sent_at, sends))),
       CAST(group_concat(payload, ',') AS BLOB)
FROM json_each(?1) CROSS JOIN claims ON seq = value CROSS JOIN outbox USING (seq)
"""

# When the next delayed row is due or the next lease ends.
NEXT_DUE = """
SELECT min(at) FROM (
    SELECT min(due_at) AS at FROM ready WHERE isolated = 0 AND due_at > 0 AND due_at > ?1
    UNION ALL
    SELECT min(due_at) FROM ready WHERE isolated = 1 AND due_at > ?1
    UNION ALL
    SELECT min(lease_until) FROM claims)
"""

# ?1 is a JSON array of seqs, ?2 the claim, ?3 now.
SETTLE_DELIVERED = """
INSERT INTO done (seq, dead, settled_at, isolated, attempts, sends, first_sent_at, history)
SELECT seq, 0, ?3, isolated, attempts + 1, sends + 1, coalesce(first_sent_at, claimed_at), history
FROM json_each(?1) CROSS JOIN claims ON seq = value WHERE claim = ?2
"""

# ?1 is a JSON array of [seq, attempts, due_at, alone, note].
SETTLE_AGAIN = """
INSERT INTO ready (seq, attempts, due_at, isolated, bytes, sends, first_sent_at, history)
SELECT seq, value ->> 1, value ->> 2, value ->> 3, bytes, sends + 1,
       coalesce(first_sent_at, claimed_at),
       CASE WHEN value ->> 4 IS NULL THEN history ELSE json_insert(
           CASE WHEN history IS NULL THEN '[]'
                WHEN json_array_length(history) < 20 THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', ?3, 'note', value ->> 4)) END
FROM json_each(?1) CROSS JOIN claims ON seq = value ->> 0 WHERE claim = ?2
"""

# ?1 is a JSON array of [seq, attempts, reason, detail].
SETTLE_DEAD = """
INSERT INTO done (seq, dead, settled_at, isolated, attempts, sends, first_sent_at, history,
                  reason, detail)
SELECT seq, 1, ?3, isolated, value ->> 1, sends + 1, coalesce(first_sent_at, claimed_at), history,
       value ->> 2, value ->> 3
FROM json_each(?1) CROSS JOIN claims ON seq = value ->> 0 WHERE claim = ?2
"""

LET_GO = "DELETE FROM claims WHERE claim = ?2 AND seq IN (SELECT value FROM json_each(?1))"

# A claim that nobody took: its bytes never left.
PUT_BACK = """
INSERT INTO ready (seq, bytes, isolated, attempts, sends, first_sent_at, history)
SELECT seq, bytes, isolated, attempts, sends, first_sent_at, history FROM claims WHERE claim = ?1
"""
RELEASE = "DELETE FROM claims WHERE claim = ?1"

# Claims of a process or a sender that is gone: the rows are due again, and may have been sent.
GIVE_BACK = """
INSERT INTO ready (seq, sends, first_sent_at, bytes, isolated, attempts, history)
SELECT seq, sends + 1, coalesce(first_sent_at, claimed_at), bytes, isolated, attempts, history
FROM claims WHERE lease_until <= ?1
"""
EXPIRE = "DELETE FROM claims WHERE lease_until <= ?1 RETURNING claim"

# After a start by another clock a delay may lie anywhere: no delay outlives the process.
FORGET_DELAYS = """
UPDATE ready SET due_at = 0 WHERE seq IN (
    SELECT seq FROM ready WHERE isolated = 0 AND due_at > 0
    UNION ALL
    SELECT seq FROM ready WHERE isolated = 1 AND due_at > 0)
"""
