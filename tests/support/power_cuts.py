"""What a disk may hold after a power cut, rebuilt from a record of what was written.

What was synced is there. Of what was not, any part may be there, in any order, and the last write
may be torn between two sectors. A new or removed name is there only when its folder was synced. The
writes before a sync that failed are never written again: some of them are there.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.support.disk_shim import Operation
from tests.support.power_cut_load import PART

SECTOR = 512
_WRITTEN_ALL_THE_SAME = 0.3
NEWEST = "SELECT name FROM outbox ORDER BY seq DESC LIMIT 1"
ASTRAY = """
SELECT count(*) FROM outbox WHERE (seq IN (SELECT seq FROM outbox_ready))
    + (seq IN (SELECT seq FROM outbox_claims)) + (seq IN (SELECT seq FROM outbox_sent))
    + (seq IN (SELECT seq FROM outbox_done)) <> 1
"""
_CREATE, _UNLINK = "C", "U"


@dataclass
class DiskFile:
    """One file: what is on the disk, and what the kernel has not written yet."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)

    def apply(self, operation: Operation) -> None:
        """Bring one change to the disk."""
        kind, at, data = operation.operation, operation.offset, operation.data
        if kind == "T":
            del self.content[at:]
        end = at + len(data)
        if len(self.content) < end:
            self.content.extend(bytes(end - len(self.content)))
        if kind == "W":
            self.content[at:end] = data

    def synced(self) -> None:
        for operation in self.pending:
            self.apply(operation)
        self.pending = []

    def sync_failed(self, chance: random.Random) -> None:
        for operation in self.pending:
            if chance.random() < _WRITTEN_ALL_THE_SAME:
                self.apply(operation)
        self.pending = []

    def after_cut(self, chance: random.Random, keep: float) -> bytes:
        """One content that may be found; each unsynced change is kept with this probability."""
        found = DiskFile(bytearray(self.content))
        kept = [one for one in self.pending if chance.random() < keep]
        for operation in kept[:-1]:
            found.apply(operation)
        if kept:
            found.apply(_torn(kept[-1], chance))
        return bytes(found.content)


def _torn(operation: Operation, chance: random.Random) -> Operation:
    sectors = len(operation.data) // SECTOR
    if sectors < 2 or chance.random() < 0.5:
        return operation
    return operation._replace(data=operation.data[: SECTOR * chance.randrange(1, sectors)])


@dataclass
class Disk:
    """The files of one folder, by name: as the disk has the names, and as they are to be."""

    chance: random.Random
    names: dict[str, DiskFile] = field(default_factory=dict)
    live: dict[str, DiskFile] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)

    def take(self, operation: Operation) -> None:
        """Follow one recorded operation."""
        path = operation.path
        if path.endswith("/answers"):
            if operation.operation == "W":
                self._answer(operation.data.decode().split())
        elif operation.operation == _CREATE:
            self.live[path] = DiskFile()
        elif operation.operation == _UNLINK:
            self.live.pop(path, None)
        elif path in self.live:
            self._change(self.live[path], operation)
        elif operation.operation == "S":
            self._sync_folder(path)

    def _answer(self, words: list[str]) -> None:
        for word in words:
            if word.startswith("-"):
                self.answered.discard(word[1:])
            else:
                self.answered.add(word)

    def _change(self, file: DiskFile, operation: Operation) -> None:
        if operation.operation == "S":
            file.synced()
        elif operation.operation == "F":
            file.sync_failed(self.chance)
        else:
            file.pending.append(operation)

    def _sync_folder(self, folder: str) -> None:
        inside = PurePosixPath(folder)
        others = {p: f for p, f in self.names.items() if PurePosixPath(p).parent != inside}
        here = {p: f for p, f in self.live.items() if PurePosixPath(p).parent == inside}
        self.names = {**others, **here}

    def after_cut(self, chance: random.Random, keep: float) -> dict[str, bytes]:
        """The files that may be found, by name."""
        names = self.live if chance.random() < keep else self.names
        return {PurePosixPath(p).name: f.after_cut(chance, keep) for p, f in names.items()}


@dataclass
class CutTrial:
    """What became of the states that were tried."""

    states: int = 0
    damaged: int = 0
    lost_events: int = 0

    def try_state(self, folder: Path, files: dict[str, bytes], answered: set[str]) -> None:
        """Open what was found, as SQLite's recovery does, and look for what was answered."""
        self.states += 1
        for name, content in files.items():
            if not name.endswith("-shm"):
                _write(folder / name, content)
        try:
            self.lost_events += len(answered - _stored(folder / "outbox.db"))
        except sqlite3.DatabaseError:
            self.damaged += 1
            self.lost_events += len(answered)
        finally:
            for path in folder.iterdir():
                path.unlink()


def cut_everywhere(
    record: Sequence[Operation], folder: Path, *, states: int, seed: int = 1
) -> CutTrial:
    """Try so many states, evenly over the record; `folder` is empty and fast."""
    chance = random.Random(seed)
    trial = CutTrial()
    chosen = sorted(chance.choices(range(len(record)), k=states))
    disk = Disk(random.Random(seed))
    at = 0
    for cut in chosen:
        while at <= cut:
            disk.take(record[at])
            at += 1
        keep = chance.choice((0.0, 0.3, 0.5, 0.9, 1.0))
        # An outbox that answers nothing yet may be anything, also absent.
        if disk.answered:
            trial.try_state(folder, disk.after_cut(chance, keep), disk.answered)
    return trial


def _write(path: Path, content: bytes) -> None:
    written = content.rstrip(b"\x00")
    with path.open("wb") as file:
        file.write(written)
        file.truncate(len(content))


def _stored(path: Path) -> set[str]:
    """The ids in the file, which is sound; raises sqlite3.DatabaseError for any other."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        if file.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise sqlite3.DatabaseError("not sound")
        if file.execute(ASTRAY).fetchall() != [(0,)]:
            raise sqlite3.DatabaseError("a row is in no place, or in two")
        if file.execute(NEWEST).fetchall() == [(PART,)]:
            raise sqlite3.DatabaseError("a call is stored in part")
        return {one for (one,) in file.execute("SELECT event_id FROM outbox")}
