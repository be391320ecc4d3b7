"""The objects of the journal: their names and their content.

A name is `id/first-count` below the prefix: the id of the start that wrote it, the number of the
group's first event, and how many it had. An object without bytes is void: its group was never
committed. `id/mark-…` lists what persons removed, and `id/live` is there while the start runs. The
invariant: a number is used once under an id, so that a name says the same for ever.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import uuid_utils

from inngest_outbox.outbox.sqlite.file.journalled import JournalRow, Range

_VERSION = 1
_NAME = re.compile(r"([0-9a-f]{12})/(?:(\d{16})-(\d+)|mark-([0-9a-f-]+)|(live))")

_encode = msgspec.msgpack.Encoder().encode


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The events of an object, and the Inngest that they go to. `id` derives their ULIDs."""

    version: int
    id: str
    destination: str
    rows: Sequence[JournalRow]


class Listed(NamedTuple):
    """An object of the bucket. `modified_ms` is by the bucket's clock."""

    name: str
    size: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class GroupObject:
    """A group in the bucket: so many numbers from `first` on."""

    name: str
    first: int
    numbers: int
    size: int
    modified_ms: int

    @property
    def range(self) -> Range:
        """The numbers of its events."""
        return self.first, self.first + self.numbers - 1


@dataclass(slots=True)
class Start:
    """All that one start of a service has in the bucket."""

    groups: list[GroupObject] = field(default_factory=list)
    voids: list[GroupObject] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    is_live: bool = False

    def after(self, number: int) -> list[GroupObject]:
        """The groups with events above this number, in order."""
        return [group for group in self.groups if group.range[1] > number]


def group_name(id_: str, first: int, count: int) -> str:
    """The name of a group.

    >>> group_name("00ff00ff00ff", 7, 2)
    '00ff00ff00ff/0000000000000007-2'
    """
    return f"{id_}/{first:016d}-{count}"


def mark_name(id_: str) -> str:
    """A new name of a mark."""
    return f"{id_}/mark-{uuid_utils.uuid7()}"


def live_name(id_: str) -> str:
    """The name of the object that is there while the start runs."""
    return f"{id_}/live"


def encode_group(id_: str, destination: str, rows: Sequence[JournalRow]) -> bytes:
    """The content of an object."""
    return _encode(Content(_VERSION, id_, destination, rows))


def decode_group(data: bytes) -> Content:
    """The content of an object. Raises msgspec.DecodeError for another one's."""
    content = msgspec.msgpack.decode(data, type=Content)
    if content.version != _VERSION:
        raise msgspec.DecodeError(f"version {content.version} of the journal")
    return content


def encode_mark(ids: Iterable[str]) -> bytes:
    """The content of a mark: the ids of events."""
    return _encode(sorted(ids))


def decode_mark(data: bytes) -> list[str]:
    """The ids in a mark. Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(data, type=list[str])


def by_start(objects: Iterable[Listed]) -> dict[str, Start]:
    """The objects of each start, groups in order. Other names are no part of a journal."""
    starts: defaultdict[str, Start] = defaultdict(Start)
    for name, size, modified_ms in sorted(objects):
        if not (found := _NAME.fullmatch(name)):
            continue
        id_, first, count, mark, live = found.groups()
        start = starts[id_]
        if first:
            group = GroupObject(name, int(first), int(count), size, modified_ms)
            (start.groups if size else start.voids).append(group)
        elif mark:
            start.marks.append(name)
        start.is_live |= bool(live)
    return dict(starts)
