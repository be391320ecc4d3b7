"""An outbox with small files, so that a load of seconds checkpoints and truncates its log often."""

from __future__ import annotations

from inngest_outbox.outbox.sqlite.file import log

# Below the folder whose writes are recorded; the outbox makes its own folder.
DATABASE = "new/outbox.db"
LOG = "new/outbox.db-wal"
ANSWERS = "answers"
LIMITS = {"max_pending": 100_000, "max_pending_per_user": 100_000}
# The events of one call. The last is named so; an outbox that ends in a part holds half a call.
PART, LAST_PART = "part", "last part"


def keep_files_small() -> None:
    """Shrink the log's preallocated size to 256 KiB; checkpoint it every 40 pages."""
    log.PREALLOCATED_BYTES = 256 * 1024
    log.CHECKPOINT_FRAMES, log._AGAIN_FRAMES = 40, 10
