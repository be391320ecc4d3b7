"""What a recorded load has told its clients so far, line by line in the file `answers`.

`ID` was answered, `-ID` was delivered and may be purged. `copying NAME` begins a copy, which
`copied NAME` ends: from then on the copy is there, with all that was answered when it began.
`took ID ULID` and `held ID ULID` are Inngest's: it took the event, it stored the event. From
`settled ID` on the event is on disk as delivered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from tests.support.power_cuts.small_files import ANSWERS
from tests.support.storage import event


class AnswersFile:
    """Written by the load, in one write for each answer."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / ANSWERS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, lines: Iterable[str]) -> None:
        os.write(self._file, "".join(f"{line}\n" for line in lines).encode())


async def post(outbox: SqliteOutbox, answers: AnswersFile) -> None:
    """Append an event, and tell its id when it is answered."""
    one = event(size=600)
    await outbox.intake.append(one)
    answers.tell([one.id])


class Answers:
    """What must be there: the events by id, and the copies by path, each with its events.

    `took` and `held` are Inngest's ULIDs by the event's id.
    """

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.copies: dict[str, frozenset[str]] = {}
        self.finished: set[str] = set()
        self.took: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.settled: set[str] = set()

    def take(self, written: bytes) -> None:
        for line in written.decode().splitlines():
            match line.split():
                case ["copying", name]:
                    self.copies[name] = frozenset(self.ids)
                case ["copied", name]:
                    self.finished.add(name)
                case ["took", event_id, ulid]:
                    self.took[event_id] = ulid
                case ["held", event_id, ulid]:
                    self.held[event_id] = ulid
                case ["settled", event_id]:
                    self.settled.add(event_id)
                case [one] if one.startswith("-"):
                    self._forget(one[1:])
                case [event_id]:
                    self.ids.add(event_id)

    def _forget(self, event_id: str) -> None:
        """It may be purged now, also before a copy under way reads it."""
        self.ids.discard(event_id)
        for name in self.copies.keys() - self.finished:
            self.copies[name] -= {event_id}
