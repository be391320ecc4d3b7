"""The states that a disk may be in after a power cut at one moment.

Of the changes that were not synced any part is kept, in any order, and one write may be torn: some
of its sectors are kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.support.disk_shim import Operation
from tests.support.power_cuts.content import Content
from tests.support.power_cuts.disk import Change, Disk, DiskFile, Naming, Write

SECTOR = 512
_DRAWN_IN_VAIN = 16  # then a moment is taken to have no more states


@dataclass(frozen=True)
class DiskState:
    """The files by path, and a mark that equal states share."""

    files: Mapping[str, Content]
    mark: int

    @staticmethod
    def of(disk: Disk, kept: Sequence[Change]) -> DiskState:
        """What is found when these changes were made, in this order."""
        names, contents = dict(disk.names), dict[DiskFile, Content]()
        for one in kept:
            if isinstance(one, Naming):
                one.apply(names)
            else:
                one.apply(contents)
        files = disk.found(names, contents)
        # The note beside the database is never synced: it would double each state.
        counted = ((path, file.mark) for path, file in files.items() if not path.endswith(".lock"))
        return DiskState(files, hash(tuple(sorted(counted))))


def states(disk: Disk, most: int, chance: random.Random) -> Iterator[DiskState]:
    """Up to so many different states, the likeliest first: nothing is lost, all is lost."""
    seen = set[int]()
    vain = 0
    for kept in _choices(disk.pending, chance):
        state = DiskState.of(disk, kept)
        if state.mark in seen:
            vain += 1
        else:
            seen.add(state.mark)
            vain = 0
            yield state
        if len(seen) == most or vain == _DRAWN_IN_VAIN or not disk.pending:
            return


def _choices(pending: Sequence[Change], chance: random.Random) -> Iterator[Sequence[Change]]:
    yield pending
    yield ()
    while True:
        at = chance.randrange(len(pending))
        keep = chance.choice((0.1, 0.3, 0.5, 0.7, 0.9))
        kept = chance.choice(
            (
                [*pending[:at], *pending[at + 1 :]],
                [pending[at]],
                pending[: at + 1],
                [one for one in pending if chance.random() < keep],
                [one for one in pending if chance.random() < keep],
            )
        )
        kept = list(kept)
        if chance.random() < 0.3:
            chance.shuffle(kept)
        yield _torn(kept, chance) if chance.random() < 0.5 else kept


def _torn(kept: list[Change], chance: random.Random) -> list[Change]:
    """The same with one write torn, more often the last."""
    if kept:
        at = chance.choice((-1, chance.randrange(len(kept))))
        one = kept[at]
        if isinstance(one, Write) and one.operation.operation == "W":
            end = len(kept) if at == -1 else at + 1
            kept[at:end] = [Write(one.file, part) for part in _sectors(one.operation, chance)]
    return kept


def _sectors(operation: Operation, chance: random.Random) -> list[Operation]:
    """The parts of a write that lie in the sectors that are kept: the first, the last or any."""
    first = operation.offset // SECTOR
    bounds = range(first, (operation.offset + len(operation.data) - 1) // SECTOR + 1)
    cut = chance.randrange(len(bounds) + 1) + first
    keeps = chance.choice(
        (lambda at: at < cut, lambda at: at >= cut, lambda _: chance.random() < 0.5)
    )
    parts = []
    for sector in filter(keeps, bounds):
        at = max(0, sector * SECTOR - operation.offset)
        data = operation.data[at : (sector + 1) * SECTOR - operation.offset]
        parts.append(operation._replace(offset=operation.offset + at, data=data))
    return parts
