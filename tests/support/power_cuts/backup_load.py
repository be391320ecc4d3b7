"""Backups of an outbox that takes events meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from inngest_outbox.outbox.sqlite.file.backup import back_up
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.power_cuts.answers import AnswersFile, post
from tests.support.power_cuts.small_files import DATABASE, LIMITS

COPIES = ("one.db", "two.db", "three.db")
EVENTS = 40


def run(folder: Path) -> None:
    asyncio.run(_load(folder, AnswersFile(folder)))


async def _load(folder: Path, answers: AnswersFile) -> None:
    async with open_sqlite_outbox(folder / DATABASE, **LIMITS) as outbox:
        await _posts(outbox, answers)
        for name in COPIES:
            answers.tell([f"copying {name}"])
            copy = asyncio.to_thread(back_up, folder / DATABASE, folder / name, lambda *_: None)
            await asyncio.gather(copy, _posts(outbox, answers))
            answers.tell([f"copied {name}"])


async def _posts(outbox: SqliteOutbox, answers: AnswersFile) -> None:
    for _ in range(EVENTS):
        await post(outbox, answers)
