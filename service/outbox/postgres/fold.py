"""Folding the changes of the counts into the counts."""

from __future__ import annotations

# Folds the changes that no open transaction can precede, and removes those of the fold before. When
# two processes fold at once, the second sees that `changes_folded` has moved and changes nothing.
FOLD = """
WITH meta AS MATERIALIZED (
    SELECT changes_folded, changes_trimmed, safe_change FROM outbox_meta, outbox_mark
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
), now AS MATERIALIZED (
    SELECT changed.owner, coalesce(c.pending, 0) + changed.pending AS pending,
           coalesce(c.stored, 0) + changed.stored AS stored,
           coalesce(c.stored_bytes, 0) + changed.bytes AS bytes
    FROM moved, changed LEFT JOIN LATERAL (
        SELECT * FROM outbox_counts WHERE outbox_counts.owner = changed.owner OFFSET 0
    ) AS c ON true
    WHERE (changed.pending, changed.stored, changed.bytes) <> (0, 0, 0)
), put AS (
    INSERT INTO outbox_counts (owner, pending, stored, stored_bytes)
    SELECT owner, pending, stored, bytes FROM now WHERE (pending, stored, bytes) <> (0, 0, 0)
    ON CONFLICT (owner) DO UPDATE SET pending = excluded.pending, stored = excluded.stored,
        stored_bytes = excluded.stored_bytes
), gone AS (
    DELETE FROM outbox_counts WHERE owner = ANY(ARRAY(
        SELECT owner FROM now WHERE (pending, stored, bytes) = (0, 0, 0)))
), trimmed AS (
    DELETE FROM outbox_changes USING moved WHERE no > trimmed AND no <= trim_to
)
SELECT count(*) FROM moved
"""
