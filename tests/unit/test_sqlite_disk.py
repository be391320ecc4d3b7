"""When the disk of an outbox counts as nearly full."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.outbox.sqlite.file import disk as module
from service.outbox.sqlite.file.disk import Disk, beside

BLOCK = 4096
HEADROOM_BLOCKS = 16 * 1024 * 1024 // BLOCK


class Room:
    """A disk of so many blocks, of which `free` are left; `asked` counts the questions."""

    def __init__(self, blocks: int) -> None:
        self.blocks, self.free, self.asked, self.now = blocks, 0, 0, 0.0
        self.fails = False
        self.folders: set[object] = set()

    def statvfs(self, folder: object) -> SimpleNamespace:
        self.asked += 1
        self.folders.add(folder)
        if self.fails:
            raise OSError(5, "I/O error")
        return SimpleNamespace(f_blocks=self.blocks, f_frsize=BLOCK, f_bavail=self.free)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    made = Room(1 << 30)
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.mark.parametrize(
    ("blocks", "headroom"),
    [(1 << 30, HEADROOM_BLOCKS), (300, 100), (3 * HEADROOM_BLOCKS, HEADROOM_BLOCKS)],
)
def test_a_disk_is_short_below_16_mib_or_a_third_of_it(
    room: Room, blocks: int, headroom: int
) -> None:
    room.blocks = blocks
    for free, is_short in ((headroom, False), (headroom - 1, True)):
        room.free = free
        assert Disk(Path("/data")).is_short() is is_short
    assert room.folders == {Path("/data")}


def test_the_answer_is_a_quarter_of_a_second_old_at_most(room: Room) -> None:
    disk, asked = Disk(Path("/data")), []
    for now in (0, 0.125, 0.249, 0.25, 0.3, 0.499, 0.5):
        room.now = now
        assert disk.is_short()
        asked.append(room.asked)
    assert asked == [1, 1, 1, 2, 2, 2, 3]
    room.free = HEADROOM_BLOCKS
    assert disk.is_short()
    room.now = 1
    assert not disk.is_short()


def test_a_disk_that_can_not_be_asked_is_as_it_was(room: Room) -> None:
    disk = Disk(Path("/data"))
    room.fails = True
    assert not disk.is_short()
    room.fails, room.now = False, 1
    assert disk.is_short()
    room.fails, room.now = True, 2
    assert disk.is_short()


def test_a_file_beside_the_database_has_its_name_and_an_ending() -> None:
    assert beside(Path("/data/outbox.db"), "-wal") == Path("/data/outbox.db-wal")
