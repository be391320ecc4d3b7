"""Comparing the bucket with the file, and bringing back what the file has never had.

A start that lost its disk finds events of other starts. Where one of these still runs, it puts its
`live` object again when that was removed: its events, and those for another Inngest, are left alone
unless a person told. The invariant: a mark or a void outweighs a group.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.journal.bucket import JournalBucket
from inngest_outbox.journal.contents import Stored
from inngest_outbox.journal.journal import S3Journal
from inngest_outbox.journal.objects import (
    Content,
    GroupObject,
    Start,
    by_start,
    decode_group,
    decode_mark,
    live_name,
)
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.sqlite.file.journalled import (
    JournalledFile,
    Known,
    Restored,
    ReturningRow,
)

_READ = 16  # objects at a time, and
_READ_BYTES = 32 * 1024 * 1024
_KEPT_IDS = 50
_UNKNOWN = Known()
_NOTHING = Content(0, "", "", ())


@dataclass(slots=True)
class Compared:
    """The findings and acts of a comparison.

    `foreign` names objects whose events the file has under other numbers, `garbage` those that go
    at a time, `marks` those of earlier starts. `refused` are sentences.
    """

    restored: Restored = field(default_factory=Restored)
    objects: int = 0
    foreign: list[str] = field(default_factory=list)
    garbage: list[tuple[str, float]] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


class StartView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The objects of one start, for people. `unknown` events the file has never had."""

    id: str
    ours: bool
    live: bool
    objects: int
    bytes: int
    unknown_objects: int
    unknown: int
    marks: int
    oldest_at: int | None


class Comparison:
    """Compares the bucket of `journal` with `file`. `known` is what the file knows of starts."""

    def __init__(self, journal: S3Journal, file: JournalledFile) -> None:
        self._journal = journal
        self._bucket = journal.bucket
        self._file = file
        self.known: dict[str, Known] = {}

    async def look(self) -> list[StartView]:
        """The content of the bucket. Raises StorageUnavailableError."""
        own = {self._journal.id: Known(ours=1, had=1 << 62)}
        return await views(self._bucket, self.known | own)

    async def compare(self, told: Collection[str]) -> Compared:
        """Bring back what the file has never had; of the starts in `told` whoever they are.

        Safe to repeat and to interrupt. Raises StorageUnavailableError, OutboxUnavailableError.
        """
        starts, compared = await _starts(self._bucket), Compared()
        starts.pop(self._journal.id, None)
        compared.objects = sum(len(start.groups) for start in starts.values())
        await self._skip(starts)
        unknown = {
            id_: groups
            for id_, start in starts.items()
            if (groups := start.after(self.known.get(id_, _UNKNOWN).had))
        }
        for id_ in await self._living(starts, unknown, told):
            if id_ in unknown:
                events = self._count(id_, unknown.pop(id_))
                compared.refused.append(_sentence(id_, events, "another outbox that runs"))
        if unknown:
            await self._restore(unknown, await self._marked(starts), compared, told)
        self._take_in(starts, compared)
        gone = [id_ for id_ in self.known if id_ not in starts][:-_KEPT_IDS]
        if gone:
            await self._file.forget(gone)
        return compared

    async def _skip(self, starts: Mapping[str, Start]) -> None:
        """Give no number again that a group of this file has in the bucket."""
        ours = [starts[id_] for id_, known in self.known.items() if known.ours and id_ in starts]
        groups = [group for start in ours for group in (*start.groups, *start.voids)]
        if groups:
            await self._file.skip_to(max(group.range[1] for group in groups))

    async def _living(
        self, starts: Mapping[str, Start], unknown: Collection[str], told: Collection[str]
    ) -> list[str]:
        """Those of the others that still run: they put what is removed here again."""
        others = [id_ for id_ in starts if id_ in unknown or id_ not in self.known]
        asked = [id_ for id_ in others if starts[id_].is_live and id_ not in told]
        if not asked:
            return []
        await self._bucket.delete([live_name(id_) for id_ in asked])
        await asyncio.sleep(self._journal.timings.ask_seconds)
        for id_ in asked:
            starts[id_].is_live = await self._bucket.exists(live_name(id_))
        return [id_ for id_ in asked if starts[id_].is_live]

    async def _marked(self, starts: Mapping[str, Start]) -> set[str]:
        """The ids of all events that persons removed. Raises OutboxUnavailableError."""
        marked: set[str] = set()
        for name in [name for start in starts.values() for name in start.marks]:
            if data := await self._bucket.get(name):
                try:
                    marked |= set(decode_mark(data))
                except ValueError as error:
                    raise OutboxUnavailableError(f"The journal's {name} can't be read.") from error
        return marked

    async def _restore(
        self,
        unknown: Mapping[str, Sequence[GroupObject]],
        marked: Collection[str],
        compared: Compared,
        told: Collection[str],
    ) -> None:
        """Bring back the groups of starts.

        The highest numbers first: an event that was in a group whose commit failed is in a later
        one too, under the number that was answered. The new numbers are in the old order.
        """
        groups = sorted(((id_, one) for id_ in unknown for one in unknown[id_]), key=_order)
        upto = await self._file.reserve(sum(group.numbers for _, group in groups))
        upto += sum(group.numbers for _, group in groups)
        refused: dict[str, str] = {}
        while groups:
            part = _last(groups)
            del groups[-len(part) :]
            found = await asyncio.gather(*(self._bucket.get(group.name) for _, group in part))
            rows = list[ReturningRow]()
            for (id_, group), data in zip(reversed(part), reversed(found), strict=True):
                upto -= group.numbers
                content = _content(data) if data else _NOTHING
                had = self.known.get(id_, _UNKNOWN).had
                if whose := self._foreign(content, is_told=id_ in told):
                    refused[id_] = whose
                elif content:
                    rows += [
                        ReturningRow(upto + row.seq - group.first, content.id, row)
                        for row in reversed(content.rows)
                        if row.seq > had and row.id not in marked
                    ]
            compared.restored = compared.restored.plus(await self._file.restore(rows[::-1]))
        for id_, those in unknown.items():
            if whose := refused.get(id_):
                compared.refused.append(_sentence(id_, self._count(id_, those), whose))
                continue
            had = those[-1].range[1]
            await self._file.had(id_, had)
            known = self.known.get(id_, _UNKNOWN)
            self.known[id_] = msgspec.structs.replace(known, had=had)

    def _count(self, id_: str, groups: Sequence[GroupObject]) -> int:
        return _count(groups, self.known.get(id_, _UNKNOWN))

    def _foreign(self, content: Content | None, *, is_told: bool) -> str | None:
        """The reason for which the content is not brought back, None where it is."""
        if content is None:
            return "a form that can't be read"
        if is_told or content is _NOTHING or content.destination == self._journal.destination:
            return None
        return f"another Inngest, {content.destination}"

    def _take_in(self, starts: Mapping[str, Start], compared: Compared) -> None:
        """Note what the bucket has of starts that this file knows; leave the others alone.

        One that has ended and has no events left anywhere is nobody's: its marks are ours.
        """
        contents, now, wall_ms = (
            self._journal.contents,
            self._journal.timings.clock(),
            wall_now_ms(),
        )
        late = self._journal.timings.late_seconds
        ours = list[GroupObject]()
        for id_, start in starts.items():
            if (known := self.known.get(id_)) is None:
                if start.groups or start.is_live or compared.refused:
                    continue
                known = _UNKNOWN
            ours += [group for group in start.groups if group.first <= known.ours]
            others = [one for one in start.groups if known.ours < one.first <= known.had]
            compared.foreign += [group.name for group in others]
            compared.garbage += [(group.name, now + late) for group in start.voids]
            compared.marks |= dict.fromkeys(start.marks, now)
            if start.is_live and not start.after(known.had):
                compared.garbage.append((live_name(id_), now))
        for group in sorted(ours, key=lambda one: -one.numbers):
            age = min(late, max(0.0, (wall_ms - group.modified_ms) / 1000))
            there = contents.covering(group.first)
            if there is None:
                contents.add(Stored(group.name, group.range, group.numbers, now - age))
            elif there.name != group.name:  # an earlier put of a part has landed
                compared.garbage.append((group.name, now))
        if compared.marks or self._journal.marks or self._journal.unmarked:
            # Which objects have what was removed is not known.
            for stored in contents.objects():
                stored.is_marked = True


def _order(one: tuple[str, GroupObject]) -> tuple[int, str]:
    return one[1].first, one[0]


def _last(groups: Sequence[tuple[str, GroupObject]]) -> list[tuple[str, GroupObject]]:
    """The last groups, as many as are read at a time."""
    sizes = itertools.accumulate(group.size for _, group in reversed(groups[-_READ:-1]))
    return list(groups[-1 - sum(size <= _READ_BYTES for size in sizes) :])


def _content(data: bytes) -> Content | None:
    """The content of an object, None where it can't be read."""
    with contextlib.suppress(ValueError):  # also for text that is not UTF-8
        return decode_group(data)
    return None


async def views(bucket: JournalBucket, known: Mapping[str, Known]) -> list[StartView]:
    """The objects of each start, for people. Raises StorageUnavailableError."""
    starts = await _starts(bucket)
    return [_view(id_, start, known.get(id_)) for id_, start in starts.items()]


async def _starts(bucket: JournalBucket) -> dict[str, Start]:
    return by_start([one async for one in bucket.listed()])


def _view(id_: str, start: Start, known: Known | None) -> StartView:
    had = known or _UNKNOWN
    unknown = start.after(had.had)
    return StartView(
        id=id_,
        ours=known is not None,
        live=start.is_live,
        objects=len(start.groups),
        bytes=sum(group.size for group in start.groups),
        unknown_objects=len(unknown),
        unknown=_count(unknown, had),
        marks=len(start.marks),
        oldest_at=min((group.modified_ms for group in start.groups), default=None),
    )


def _count(unknown: Sequence[GroupObject], known: Known) -> int:
    """The number of events in the groups that a file has never had, at most."""
    return sum(min(group.numbers, group.range[1] - known.had) for group in unknown)


def _sentence(id_: str, events: int, whose: str) -> str:
    return (
        f"The journal has {events:,} events under {id_}, of {whose}: they are left alone. Give "
        "each outbox a prefix of its own, or bring them back by "
        f"`outbox journal --restore {id_} --yes`."
    )
