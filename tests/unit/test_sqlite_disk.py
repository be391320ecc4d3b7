"""The disk of an outbox, and the faults that SQLite meets on it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file import disk as module
from inngest_outbox.outbox.sqlite.file import faults
from inngest_outbox.outbox.sqlite.file.disk import Disk, beside, fault_of_mount
from inngest_outbox.outbox.sqlite.file.faults import (
    FaultScope,
    is_corruption,
    is_disk_trouble,
    is_io_error,
    scope_of,
    unavailable_if_sqlite_fails,
)
from tests.support.sqlite_faults import fault, sqlite_error

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


ROOT = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw"
LAYER = "511 430 0:62 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/l,upperdir=/u"
NAMED = "530 511 254:1 /var/lib/docker/volumes/outbox/_data /var/lib/outbox rw - ext4 /dev/vda rw"
ANONYMOUS = NAMED.replace("volumes/outbox/", f"volumes/{'0af9' * 16}/")
BOUND = "530 511 254:1 /srv/my\\040outbox /var/lib/outbox rw master:1 - xfs /dev/vdb rw"
MEMORY = "531 511 0:70 / /var/lib/outbox rw,nosuid - tmpfs none rw,size=1024k"
DATABASE = PurePosixPath("/var/lib/outbox/outbox.db")


@pytest.mark.parametrize(
    "mounts",
    [
        [ROOT],
        [LAYER, NAMED],
        [LAYER, BOUND],
        [],
        [LAYER, MEMORY, NAMED],  # of two at one point the later one counts
        [LAYER, NAMED, MEMORY.replace("/outbox rw", "/outbox/deeper rw")],
        [ROOT, MEMORY.replace("/var/lib/outbox", "/var/lib/out")],  # only begins alike
        ["nonsense", "1 2 3 - ext4", ROOT],
    ],
)
def test_a_disk_a_named_volume_and_a_folder_of_the_host_are_well(mounts: list[str]) -> None:
    assert fault_of_mount(DATABASE, "\n".join(mounts)) is None


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ([LAYER, ANONYMOUS], "anonymous volume"),
        ([LAYER], "in the container: its events"),
        ([LAYER, MEMORY], "in memory"),
        ([LAYER, NAMED, MEMORY], "in memory"),
    ],
)
def test_a_place_that_goes_with_the_container_is_told(mounts: list[str], words: str) -> None:
    assert words in str(fault_of_mount(DATABASE, "\n".join(mounts)))


@pytest.mark.parametrize(
    ("point", "folder"),
    [("my\\040box", "my box"), ("a\\134b", "a\\b"), ("a\u00a0b", "a\u00a0b"), ("\u2028", "\u2028")],
)
def test_a_point_with_unusual_characters_is_found(point: str, folder: str) -> None:
    mounts = "\n".join([ROOT, MEMORY.replace("/var/lib/outbox", f"/srv/{point}")])
    assert "in memory" in str(fault_of_mount(PurePosixPath("/srv", folder, "outbox.db"), mounts))


STORE, KIND, ITEM = FaultScope.STORE, FaultScope.KIND, FaultScope.ITEM
MEANING = [
    # the error, what else fails, and whether it is an I/O error, the disk's, damage
    ("SQLITE_BUSY", STORE, "no no no"),
    ("SQLITE_BUSY_SNAPSHOT", STORE, "no no no"),
    ("SQLITE_LOCKED", STORE, "no no no"),
    ("SQLITE_READONLY", STORE, "no no no"),
    ("SQLITE_CANTOPEN", STORE, "no no no"),
    ("SQLITE_NOTADB", STORE, "no no yes"),
    ("SQLITE_IOERR", STORE, "yes yes no"),
    ("SQLITE_IOERR_FSYNC", STORE, "yes yes no"),
    ("SQLITE_FULL", KIND, "no yes no"),
    ("SQLITE_NOMEM", KIND, "no no no"),
    ("SQLITE_CORRUPT", STORE, "no no yes"),
    ("SQLITE_CORRUPT_INDEX", STORE, "no no yes"),
    ("SQLITE_CONSTRAINT_UNIQUE", ITEM, "no no no"),
    ("SQLITE_ERROR", ITEM, "no no no"),
]


@pytest.mark.parametrize(("name", "scope", "is_one"), MEANING)
def test_an_error_means_the_same_as_sqlite_raises_it_and_as_the_outbox_does(
    name: str, scope: FaultScope, is_one: str
) -> None:
    for error in (sqlite_error(name), fault(name)):
        assert scope_of(error) is scope
        found = (is_io_error(error), is_disk_trouble(error), is_corruption(error))
        assert found == tuple(word == "yes" for word in is_one.split())


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (OutboxUnavailableError("It was closed."), STORE),
        (ValueError("a bug"), ITEM),
        (sqlite3.ProgrammingError("no code"), ITEM),
    ],
)
def test_an_error_without_a_code_of_sqlite_is_the_outboxs_or_the_items(
    error: Exception, scope: FaultScope
) -> None:
    assert scope_of(error) is scope
    assert {is_io_error(error), is_disk_trouble(error), is_corruption(error)} == {False}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (sqlite_error("SQLITE_FULL"), "The disk of the outbox is full. (SQLITE_FULL)"),
        (sqlite_error("SQLITE_IOERR_WRITE"), "The disk of the outbox failed. (SQLITE_IOERR_WRITE)"),
        (sqlite_error("SQLITE_ERROR"), "The outbox's file failed. (SQLITE_ERROR)"),
        (sqlite3.ProgrammingError("closed"), "The outbox's file failed. (ProgrammingError)"),
    ],
)
def test_an_error_becomes_a_sentence(
    error: sqlite3.Error, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "is_out_of_descriptors", lambda: False)
    with pytest.raises(OutboxUnavailableError) as raised, unavailable_if_sqlite_fails():
        raise error
    assert str(raised.value) == sentence
    assert raised.value.__cause__ is error
    with pytest.raises(ValueError, match="a bug"), unavailable_if_sqlite_fails():
        raise ValueError("a bug")  # another error stays as it is


@pytest.mark.parametrize(
    ("name", "none_free", "is_told"),
    [
        ("SQLITE_CANTOPEN", True, True),
        ("SQLITE_IOERR_GETTEMPPATH", True, True),
        ("SQLITE_CANTOPEN", False, False),
        ("SQLITE_FULL", True, False),
    ],
)
def test_a_process_without_free_descriptors_is_told_so(
    name: str, *, none_free: bool, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "is_out_of_descriptors", lambda: none_free)
    with (
        capture_logs() as logs,
        pytest.raises(OutboxUnavailableError) as raised,
        unavailable_if_sqlite_fails(),
    ):
        raise sqlite_error(name)
    assert ("file descriptor" in str(raised.value)) is is_told
    assert str(raised.value).endswith(f"({name})")
    told = [{"event": "no_file_descriptors", "log_level": "error", "error": name}]
    assert logs == (told if is_told else [])
