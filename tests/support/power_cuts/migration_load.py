"""A migration of an outbox that holds events, at a start of the service; a sync fails in it.

`know_migration` makes this process one whose code is a migration ahead.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox import schema
from inngest_outbox.outbox.schema import known_ids, migration_files
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.power_cuts.answers import AnswersFile, post
from tests.support.power_cuts.small_files import DATABASE, LIMITS, LOG
from tests.support.storage import ask, deliver

EVENTS = 60
LATER = f"{int(known_ids()[-1][:4]) + 1:04}_later"
SCRIPT = """
CREATE TABLE outbox_later (seq INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
INSERT INTO outbox_later SELECT seq, name FROM outbox;
ALTER TABLE outbox ADD COLUMN later INTEGER NOT NULL DEFAULT 0;
UPDATE outbox SET later = seq;
CREATE INDEX outbox_by_later ON outbox (later);
"""
HALF_MIGRATED = f"""
SELECT (SELECT count(*) FROM outbox_migrations WHERE id = '{LATER}')
    <> (SELECT count(*) FROM sqlite_master WHERE name = 'outbox_by_later')
"""


def know_migration() -> None:
    """Add the migration to those of this process's code."""
    script = Path(tempfile.mkdtemp(prefix="outbox-migration-")) / f"{LATER}.sql"
    script.write_text(SCRIPT)

    def files(dialect: str) -> list[Path]:
        return [*migration_files(dialect), script]

    schema.migration_files = files


def run(folder: Path) -> None:
    answers = AnswersFile(folder)
    asyncio.run(_served(folder / DATABASE, answers))
    know_migration()
    Path(os.environ["DISK_SHIM_FAULTS"]).write_text(LOG)
    asyncio.run(_served_at_last(folder / DATABASE, answers))


async def _served_at_last(path: Path, answers: AnswersFile) -> None:
    try:
        await _served(path, answers)
    except OutboxUnavailableError:
        await _served(path, answers)


async def _served(path: Path, answers: AnswersFile) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await asyncio.gather(*(post(outbox, answers) for _ in range(EVENTS)))
        batch = await outbox.queue.claim(ask(EVENTS // 2))
        await deliver(outbox, batch)
        await post(outbox, answers)
