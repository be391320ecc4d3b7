"""Folding the changes of the counts into the counts."""

from __future__ import annotations

# Where more owners are carried, all are written to `outbox_counts`.
MOST_CARRIED = 10_000

# Folds the changes that no open transaction can precede, and removes those of the fold before. When
# two processes fold at once, the second sees that `changes_folded` has moved and changes nothing.
#
# What an owner's count changed by is carried in the one row of `outbox_carried`, and added to
# `outbox_counts` when it is due: after an hour, when it is half of what makes an owner one who
# fills the queue, or when with it the owner becomes one or ceases to be. Beside an open transaction
# a fold steps over each version of the rows of `outbox_counts` that it writes; the newest row of
# `outbox_carried` is found by its number.
FOLD = f"""
WITH meta AS MATERIALIZED (
    SELECT changes_folded, changes_trimmed, heavy_rows, safe_change FROM outbox_meta, outbox_mark
    WHERE safe_change > changes_folded
), folded AS MATERIALIZED (
    SELECT owners, pending, stored, stored_bytes, delivered, dead, sent FROM outbox_changes, meta
    WHERE no > changes_folded AND no <= safe_change
), changed AS MATERIALIZED (
    SELECT u.owner, coalesce(sum(u.pending), 0)::bigint AS pending,
           coalesce(sum(u.stored), 0)::bigint AS stored, coalesce(sum(u.bytes), 0)::bigint AS bytes
    FROM folded AS f, unnest(owners, f.pending, f.stored, f.stored_bytes)
        AS u(owner, pending, stored, bytes)
    GROUP BY u.owner
), moved AS (
    UPDATE outbox_meta SET changes_folded = meta.safe_change, changes_trimmed = meta.changes_folded,
        pending = outbox_meta.pending + (SELECT coalesce(sum(c.pending), 0) FROM changed c),
        stored_bytes = stored_bytes + (SELECT coalesce(sum(c.bytes), 0) FROM changed c),
        delivered = delivered + (SELECT coalesce(sum(f.delivered), 0) FROM folded f),
        dead = dead + (SELECT coalesce(sum(f.dead), 0) FROM folded f),
        sent = sent + (SELECT coalesce(sum(f.sent), 0) FROM folded f)
    FROM meta WHERE outbox_meta.changes_folded = meta.changes_folded
    RETURNING meta.changes_folded AS trim_to, meta.changes_trimmed AS trimmed
), carried AS MATERIALIZED (
    SELECT * FROM outbox_carried ORDER BY no DESC LIMIT 1
), owed AS MATERIALIZED (
    SELECT owner, sum(pending)::bigint AS pending, sum(stored)::bigint AS stored,
           sum(bytes)::bigint AS bytes
    FROM (
        TABLE changed
        UNION ALL
        SELECT u.* FROM carried AS c, unnest(c.owners, c.pending, c.stored, c.stored_bytes)
            AS u(owner, pending, stored, bytes)
    ) AS each_part
    GROUP BY owner HAVING (sum(pending), sum(stored), sum(bytes)) <> (0, 0, 0)
), turn AS MATERIALIZED (
    SELECT (SELECT count(*) FROM owed) > {MOST_CARRIED}
           OR coalesce((SELECT since < statement_timestamp() - interval '1 hour' FROM carried),
                       false) AS of_all
), crossing AS MATERIALIZED (
    SELECT c.owner FROM meta CROSS JOIN outbox_counts AS c JOIN owed USING (owner)
    WHERE c.pending >= heavy_rows / 2 AND c.pending <= 2 * heavy_rows
      AND (c.pending >= heavy_rows) <> (c.pending + owed.pending >= heavy_rows)
), now AS MATERIALIZED (
    SELECT owed.owner, coalesce(c.pending, 0) + owed.pending AS pending,
           coalesce(c.stored, 0) + owed.stored AS stored,
           coalesce(c.stored_bytes, 0) + owed.bytes AS bytes
    FROM moved, meta, turn, owed LEFT JOIN LATERAL (
        SELECT * FROM outbox_counts WHERE outbox_counts.owner = owed.owner OFFSET 0
    ) AS c ON true
    WHERE of_all OR 2 * abs(owed.pending) >= heavy_rows
       OR owed.owner IN (SELECT owner FROM crossing)
), put AS (
    INSERT INTO outbox_counts (owner, pending, stored, stored_bytes)
    SELECT owner, pending, stored, bytes FROM now WHERE (pending, stored, bytes) <> (0, 0, 0)
    ON CONFLICT (owner) DO UPDATE SET pending = excluded.pending, stored = excluded.stored,
        stored_bytes = excluded.stored_bytes
), gone AS (
    DELETE FROM outbox_counts WHERE owner = ANY(ARRAY(
        SELECT owner FROM now WHERE (pending, stored, bytes) = (0, 0, 0)))
), carry AS (
    INSERT INTO outbox_carried (since, owners, pending, stored, stored_bytes)
    SELECT coalesce((SELECT since FROM carried WHERE NOT of_all), statement_timestamp()),
           kept.owners, kept.pending, kept.stored, kept.bytes
    FROM moved, turn, (
        SELECT coalesce(array_agg(owner), '{{}}') AS owners,
               coalesce(array_agg(pending), '{{}}') AS pending,
               coalesce(array_agg(stored), '{{}}') AS stored,
               coalesce(array_agg(bytes), '{{}}') AS bytes
        FROM owed WHERE NOT EXISTS (SELECT FROM now WHERE now.owner = owed.owner)
    ) AS kept
    WHERE of_all OR EXISTS (SELECT FROM changed)
    RETURNING no
), replaced AS (
    DELETE FROM outbox_carried USING carry WHERE outbox_carried.no = (SELECT no FROM carried)
), trimmed AS (
    DELETE FROM outbox_changes USING moved WHERE no > trimmed AND no <= trim_to
)
SELECT count(*) FROM moved
"""
