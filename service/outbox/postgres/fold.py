"""Folding the changes of the counts into the counts."""

from __future__ import annotations

# Folds the changes that no open transaction can precede; see migration 0002. When two processes
# fold at once, the second does nothing.
FOLD = "SELECT outbox_fold(safe_change) FROM outbox_mark"
