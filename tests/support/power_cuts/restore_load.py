"""A start on a restored backup, whose file has no write-ahead log yet."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from inngest_outbox.outbox.sqlite.file.backup import back_up
from inngest_outbox.outbox.sqlite.file.schema import make_folder
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.power_cuts.answers import AnswersFile
from tests.support.power_cuts.small_files import DATABASE, LIMITS
from tests.support.storage import event

EVENTS = 60


def run(folder: Path) -> None:
    answers = AnswersFile(folder)
    make_folder((folder / DATABASE).parent)
    with tempfile.TemporaryDirectory() as elsewhere:
        source = Path(elsewhere) / "source.db"
        ids = asyncio.run(_posts(source))
        back_up(source, folder / DATABASE, lambda *_: None)
    answers.tell(ids)
    asyncio.run(_posts(folder / DATABASE, answers))


async def _posts(path: Path, answers: AnswersFile | None = None) -> list[str]:
    events = [event(size=500) for _ in range(EVENTS)]
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        for one in events:
            await outbox.intake.append(one)
            if answers:
                answers.tell([one.id])
    return [one.id for one in events]
