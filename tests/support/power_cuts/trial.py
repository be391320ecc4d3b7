"""A power cut at every moment of a recording, and what a start then finds.

A state is counted once, at whatever moments it may arise, and started once. At each of the moments
it must hold what was answered by then.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.disk_shim import Operation
from tests.support.memory_folder import memory_folder
from tests.support.power_cuts.answers import Answers
from tests.support.power_cuts.disk import Disk
from tests.support.power_cuts.migration_load import know_migration
from tests.support.power_cuts.recording import Recording
from tests.support.power_cuts.restart import Found, Restarts
from tests.support.power_cuts.small_files import ANSWERS, DATABASE
from tests.support.power_cuts.states import DiskState, states

LOST = "an answered event is lost"
# Of the states of these loads so many are delivered to an Inngest.
DELIVERED_SHARES = {"service": 0.2}
_PARTS = 16
_FORK = multiprocessing.get_context("fork")


@dataclass
class Tried:
    """How many cuts were tried, the marks of their states, and the faults by how often.

    `delivered` counts cuts after which delivery was tried.
    """

    moments: int = 0
    cuts: int = 0
    delivered: int = 0
    marks: set[int] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tried) -> None:
        self.moments += other.moments
        self.cuts += other.cuts
        self.delivered += other.delivered
        self.marks |= other.marks
        self.faults += other.faults


@dataclass(frozen=True)
class Plan:
    """About how many different states are wanted; where fewer are possible, those.

    `first_fault` ends the trial. What is drawn follows from `seed`. `after_fault` are the moments
    to try after the device's first fault; None: all. A moment that is tried has `least` states: all
    is kept, nothing is kept, then what is drawn.
    """

    states: int
    least: int = 2
    first_fault: bool = False
    seed: int = 1
    after_fault: int | None = None

    def moments(self, operations: Sequence[Operation]) -> range:
        """The moments to try."""
        kinds = [one.operation for one in operations]
        faults = [at for at, kind in enumerate(kinds) if kind in "FE"]
        if self.after_fault is None or not faults:
            return range(len(operations))
        return range(faults[0], min(len(operations), faults[0] + self.after_fault))


def try_cuts(recording: Recording, plan: Plan, *, workers: int) -> Tried:
    """Try the states of a plan, in so many processes."""
    begun = []
    for number in range(workers):
        receiver, sender = _FORK.Pipe(duplex=False)
        share = range(number, _PARTS, workers)
        process = _FORK.Process(target=_work, args=(recording, plan, share, sender))
        process.start()
        sender.close()
        begun.append((process, receiver))
    tried = Tried()
    for process, receiver in begun:
        tried.add(receiver.recv())
        process.join()
    return tried


def _work(recording: Recording, plan: Plan, parts: range, sender: Connection) -> None:
    """Try the moments in these parts of the recording, in a process that does nothing else."""
    if recording.load == "migration":
        know_migration()
    count, moments = len(recording.operations), plan.moments(recording.operations)
    mine = [at in moments and at % _PARTS in parts for at in range(count)]
    chance = random.Random(f"{plan.seed} {parts}")
    with tempfile.TemporaryDirectory(prefix="outbox-cuts-", dir=memory_folder()) as folder:
        share = DELIVERED_SHARES.get(recording.load, 0.0)
        trial = _Trial(Restarts(Path(folder), chance), chance, plan.least, share)
        left = sum(mine)
        for is_mine, (disk, answers) in zip(mine, _moments(recording, plan.seed), strict=True):
            if is_mine and left:
                wanted = plan.states * len(parts) / _PARTS - len(trial.tried.marks)
                trial.try_moment(disk, answers, wanted / left)
                left -= 1
            if plan.first_fault and trial.tried.faults:
                break
    sender.send(trial.tried)


def _moments(recording: Recording, seed: int) -> Iterator[tuple[Disk, Answers]]:
    """The disk and the answers after each operation."""
    disk, answers = Disk(recording.root, random.Random(seed)), Answers()
    for one in recording.operations:
        if one.path == f"{recording.root}/{ANSWERS}":
            if one.operation == "W":
                answers.take(one.data)
        else:
            disk.take(one)
        yield disk, answers


class _Trial:
    def __init__(
        self, restarts: Restarts, chance: random.Random, least: int, delivered_share: float
    ) -> None:
        self._restarts = restarts
        self._chance = chance
        self._least = least
        self._delivered_share = delivered_share
        self._found: dict[int, dict[str, Found]] = {}
        self.tried = Tried()

    def try_moment(self, disk: Disk, answers: Answers, wanted: float) -> None:
        """Try so many states; where that is less than the least, the moment only now and then."""
        if self._chance.random() >= wanted / self._least:
            return
        most = max(self._least, math.ceil(wanted))
        self.tried.moments += 1
        for state in states(disk, most, self._chance):
            self.tried.cuts += 1
            self.tried.marks.add(state.mark)
            self.tried.faults.update(_faults(self._look(state), answers))
            if self._chance.random() < self._delivered_share:
                self.tried.delivered += 1
                self.tried.faults.update(self._restarts.deliver(state.files, answers))

    def _look(self, state: DiskState) -> Mapping[str, Found]:
        found = self._found.get(state.mark)
        if found is None:
            found = self._found[state.mark] = self._restarts.look(state.files)
        return found


def _faults(found: Mapping[str, Found], answers: Answers) -> Iterator[str]:
    """What is wrong with what was found, by what was answered."""
    for path, one in found.items():
        if one.fault:
            yield f"{path}: {one.fault}"
        wanted = answers.ids if path == DATABASE else answers.copies.get(path, frozenset())
        if wanted - one.ids:
            yield f"{path}: {LOST}"
    if answers.finished - found.keys():
        yield "a finished backup is gone"
