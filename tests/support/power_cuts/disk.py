"""A disk, followed through a record of what processes did to it.

Owns what is on it for certain, because it was synced, and the changes since then, of which a power
cut keeps any. A name is on it for certain only when its folder was synced. The writes before a sync
that failed are never written again: some of them are there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.disk_shim import Operation
from tests.support.power_cuts.content import Content

_WRITTEN_ALL_THE_SAME = 0.3
# What nobody asks for after a cut: SQLite's index, which it builds again, and copies in progress.
_TRANSIENT = ("-shm", ".partial-", ".whole-", ".named-")
_NAMES = "CDULR"


@dataclass(eq=False)
class DiskFile:
    """A file, or a folder, whatever its names are."""

    content: Content = field(default_factory=Content)
    is_folder: bool = False


class Write(NamedTuple):
    """A change of a file that is not synced."""

    file: DiskFile
    operation: Operation

    def apply(self, contents: dict[DiskFile, Content]) -> None:
        """Make the change in `contents`, where the file's own content is not touched."""
        content = contents.get(self.file)
        if content is None:
            content = contents[self.file] = Content(self.file.content)
        change(content, self.operation)


class Naming(NamedTuple):
    """A change of folders that is not synced: each name's file, None for a name that goes."""

    names: Mapping[str, DiskFile | None]

    def is_in(self, folder: str) -> bool:
        return any(path.rpartition("/")[0] == folder for path in self.names)

    def apply(self, names: dict[str, DiskFile]) -> None:
        for path, file in self.names.items():
            if file is None:
                names.pop(path, None)
            else:
                names[path] = file


Change = Write | Naming


def change(content: Content, operation: Operation) -> None:
    """What the operation does to a content."""
    if operation.operation == "W":
        content.write(operation.offset, operation.data)
    elif operation.operation == "T":
        content.resize(operation.offset)
    elif operation.operation == "A":
        content.resize(max(content.size, operation.offset))


class Disk:
    """The folder `root` and all that is in it."""

    def __init__(self, root: str, chance: random.Random) -> None:
        self._below = f"{root}/"
        self._chance = chance
        self._inodes: dict[int, DiskFile] = {}
        self._live: dict[str, DiskFile] = {}
        self.names: dict[str, DiskFile] = {}
        self.pending: list[Change] = []

    def take(self, one: Operation) -> None:
        """Follow one recorded operation."""
        if one.operation in _NAMES:
            self._rename(one)
        elif one.operation in "SF":
            self._sync(one)
        elif one.operation != "E" and (file := self._inodes.get(one.inode)) is not None:
            self.pending.append(Write(file, one))

    def _rename(self, one: Operation) -> None:
        new_path = one.data.decode()
        if one.operation in "CD":
            self._inodes[one.inode] = DiskFile(is_folder=one.operation == "D")
        file = self._inodes.get(one.inode, DiskFile())
        names = {
            "C": {one.path: file},
            "D": {one.path: file},
            "U": {one.path: None},
            "L": {new_path: file},
            "R": {one.path: None, new_path: file},
        }[one.operation]
        lasting = {path: of for path, of in names.items() if path and not _is_transient(path)}
        Naming(names).apply(self._live)
        if lasting:
            self.pending.append(Naming(lasting))
        if one.operation == "U" and file not in self._live.values():
            self._inodes.pop(one.inode, None)

    def _sync(self, one: Operation) -> None:
        """Bring to the disk what is pending of this file and of the names in this folder."""
        left: list[Change] = []
        for change_ in self.pending:
            if isinstance(change_, Naming):
                if one.operation == "S" and change_.is_in(one.path):
                    change_.apply(self.names)
                else:
                    left.append(change_)
            elif change_.file is not self._inodes.get(one.inode):
                left.append(change_)
            elif one.operation == "S" or self._chance.random() < _WRITTEN_ALL_THE_SAME:
                change(change_.file.content, change_.operation)
        self.pending = left

    def found(
        self, names: Mapping[str, DiskFile], contents: Mapping[DiskFile, Content]
    ) -> dict[str, Content]:
        """The files that can be reached from the root, by their paths below it."""
        return {
            path.removeprefix(self._below): contents.get(file, file.content)
            for path, file in names.items()
            if not file.is_folder and all(folder in names for folder in self._above(path))
        }

    def _above(self, path: str) -> Iterator[str]:
        """The folders below the root that `path` is in."""
        folder = path.rpartition("/")[0]
        while folder.startswith(self._below):
            yield folder
            folder = folder.rpartition("/")[0]


def _is_transient(path: str) -> bool:
    return any(part in path for part in _TRANSIENT)
