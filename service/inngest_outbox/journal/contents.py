"""The objects that the journal has of this file, and the ranges that it lacks.

Each object has a range of the file's seqs. The invariant: a seq is in one object at most, and a
range that has no object stays here until it is put.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inngest_outbox.outbox.sqlite.file.journalled import Range

MAX_ROWS = 500  # of a group that is put later


@dataclass(slots=True)
class Stored:
    """An object with events of this file.

    It has `rows` rows, and says of `dead` of them that they are dead. It was written at
    `written_at`. `is_marked` says that a person removed some of its events. Until `uncertain_until`
    an earlier put may still replace it. Times are those of the journal's clock.
    """

    name: str
    range: Range
    rows: int
    written_at: float
    dead: int = 0
    is_marked: bool = False
    uncertain_until: float = 0.0


class Contents:
    """The objects by their first numbers.

    `missing` are the ranges that have none yet, each with the time until which a put that began
    may still land, 0 without one. `marked` are numbers that a person removed while their object was
    on its way: it may have them.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._objects: dict[int, Stored] = {}
        self.missing: dict[Range, float] = {}
        self.marked: set[int] = set()

    def __len__(self) -> int:
        return len(self._objects)

    def objects(self) -> list[Stored]:
        """All objects, in order."""
        return [self._objects[first] for first in self._firsts]

    def add(self, stored: Stored) -> None:
        """Note an object; it is no longer missing."""
        first, last = stored.range
        if first not in self._objects:
            bisect.insort(self._firsts, first)
        self._objects[first] = stored
        if removed := {seq for seq in self.marked if first <= seq <= last}:
            stored.is_marked = True
            self.marked -= removed
        self.missing.pop(stored.range, None)

    def remove(self, stored: Stored) -> None:
        """Forget an object."""
        first = stored.range[0]
        if self._objects.get(first) is stored:
            del self._objects[first]
            del self._firsts[bisect.bisect_left(self._firsts, first)]

    def covering(self, seq: int) -> Stored | None:
        """The object that has this number, None without one."""
        at = bisect.bisect_right(self._firsts, seq) - 1
        found = self._objects[self._firsts[at]] if at >= 0 else None
        return found if found and seq <= found.range[1] else None

    def lacks(self, seq: int) -> bool:
        """True if the number is in a range that must still be put."""
        return any(first <= seq <= last for first, last in self.missing)

    def uncovered(self, seqs: Sequence[int]) -> Iterator[Range]:
        """Ranges, in order, of those numbers that no object has and that are not missing yet."""
        start = last = None
        count = 0
        for seq in seqs:
            if self.covering(seq) or self.lacks(seq):
                continue
            if start is not None and last is not None:
                if count < MAX_ROWS and not self._between(last, seq):
                    last, count = seq, count + 1
                    continue
                yield start, last
            start = last = seq
            count = 1
        if start is not None and last is not None:
            yield start, last

    def _between(self, last: int, seq: int) -> bool:
        """True if an object or a missing range begins between the two numbers."""
        is_free = bisect.bisect_right(self._firsts, last) == bisect.bisect_right(self._firsts, seq)
        return not is_free or any(last < first < seq for first, _ in self.missing)
