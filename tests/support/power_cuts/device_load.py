"""A small load on an SQLite outbox, of which one sync or write fails, wherever it is.

Posts, claims and settlements that are not synced at once, checkpoints and a stop. It ends whatever
the device does: what is not answered is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.outbox.sqlite.timings import WriterTimings
from tests.support.power_cuts.answers import AnswersFile, post
from tests.support.power_cuts.small_files import DATABASE, LIMITS
from tests.support.storage import ask, deliver

ROUNDS = 4
GROUPS, GROUP = 3, 4
_ATTEMPTS = 4
_PATIENCE_SECONDS = 1.0


def run(folder: Path) -> None:
    answers = AnswersFile(folder)
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OutboxUnavailableError):
            asyncio.run(_served(folder / DATABASE, answers))
            return


async def _served(path: Path, answers: AnswersFile) -> None:
    timings = WriterTimings(probe_seconds=0.01)
    async with open_sqlite_outbox(path, **LIMITS, timings=timings) as outbox:
        for _ in range(ROUNDS):
            for _ in range(GROUPS):
                await asyncio.gather(*(_posted(outbox, answers) for _ in range(GROUP)))
            # Commits without a sync, in pages that the log has not held since it began again.
            for _ in range(GROUPS * GROUP):
                if outbox.undelivered:
                    await _delivered(outbox, answers)


async def _posted(outbox: SqliteOutbox, answers: AnswersFile) -> None:
    for _ in range(2):
        try:
            await post(outbox, answers)
        except OutboxUnavailableError:
            await asyncio.sleep(0.05)  # until the outbox has been probed
        else:
            return


async def _delivered(outbox: SqliteOutbox, answers: AnswersFile) -> None:
    with contextlib.suppress(OutboxUnavailableError, TimeoutError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            batch = await outbox.queue.claim(ask(1))
            await deliver(outbox, batch)
            answers.tell(f"-{entry.event_id}" for entry in batch.entries)
