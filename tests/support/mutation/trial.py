"""The trial of a module: each mutant is judged by the tests that run its line."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tests.support.mutation.in_place import Codes, Collected, tried_in_place
from tests.support.mutation.judged_run import (
    LOOK_SECONDS,
    PATIENCE,
    Baseline,
    Planted,
    baseline,
    ended,
    fork,
    judged,
    wait_for,
)
from tests.support.mutation.mutants import Mutant, mutants
from tests.support.shared_postgres import shared_postgres

ROOT = Path(__file__).parents[3]
_BASELINE_SECONDS = 600.0 * PATIENCE
SWEPT_AFTER = 16


class Change(Protocol):
    """A mutant, as a verdict names it."""

    @property
    def name(self) -> str: ...
    @property
    def line(self) -> int: ...


M = TypeVar("M", bound=Change)


@dataclass
class Verdict:
    """What became of a module's mutants. `hung` are killed by time; `unreached` survive untried."""

    module: str
    tried: int = 0
    hung: Sequence[Change] = ()
    survivors: Sequence[Change] = ()
    unreached: Sequence[Change] = ()
    seconds: float = 0.0

    @property
    def alive(self) -> list[Change]:
        """Those that no test kills."""
        return [*self.survivors, *self.unreached]


class JudgesError(Exception):
    """The tests fail without a change, so they judge nothing."""


def try_module(
    path: str,
    judges: Sequence[str],
    *,
    jobs: int = 1,
    most: int | None = None,
    seed: int = 0,
    only: str = "",
    known: Sequence[str] = (),
) -> Verdict:
    """Try the mutants of a module, or `most` of them, by the tests that pytest runs for `judges`.

    `only` is a part of the name that mutants must have; those in `known` are left out.
    """
    source = ROOT / path
    module = path.removesuffix(".py").replace("/", ".")
    found = chosen(mutants(source.read_text()), most, seed, only, known)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        unchanged = measured(source, judges, Path(folder))
        warm_up(unchanged)
        trial = _Trial(unchanged, module, str(source), Path(folder))
        began = time.perf_counter()
        trial.try_all(found, judges, jobs)
        trial.verdict.seconds = time.perf_counter() - began
        _sweep()
        return trial.verdict


def chosen(
    found: Sequence[M], most: int | None, seed: int, only: str, known: Sequence[str]
) -> list[M]:
    """Those that are tried: see `try_module`."""
    left = [one for one in found if only in one.name and one.name not in known]
    if most is not None and most < len(left):
        left = sorted(random.Random(seed).sample(left, most), key=lambda one: one.line)
    return left


def measured(source: Path, judges: Sequence[str], folder: Path) -> Baseline:
    """What the tests do without a change. Raises JudgesError when they fail."""
    answer, output = folder / "baseline", folder / "output"
    pid = fork(lambda: baseline(source, judges, answer), output, _BASELINE_SECONDS)
    wait_for(pid, time.monotonic() + _BASELINE_SECONDS)
    said = output.read_text(errors="replace")[-4000:]
    if not answer.exists():
        raise JudgesError(said)
    found = Baseline(**json.loads(answer.read_text()))
    if not found.passed:
        raise JudgesError(said)
    return found


def warm_up(unchanged: Baseline) -> None:
    """Import what the tests need of other packages, once for all forks."""
    for name in unchanged.modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy every page of what is shared


@dataclass
class _Running:
    at: int
    pid: int
    deadline: float


_ALIVE, _KILLED, _ELSEWHERE = 0, 1, 71
_Begin = Callable[[int, float], int]


class _Trial:
    """Tries mutants, a few at once: in place where that is possible, else with a new import."""

    def __init__(self, unchanged: Baseline, module: str, path: str, folder: Path) -> None:
        self.verdict = Verdict(module)
        self._unchanged = unchanged
        self._path = path
        self._folder = folder
        self._found: Sequence[Mutant] = ()

    def try_all(self, found: Sequence[Mutant], judges: Sequence[str], jobs: int) -> None:
        self._found = found
        self.verdict.tried = len(found)
        judged = [at for at, one in enumerate(found) if self._unchanged.judges(one.line)]
        self.verdict.unreached = [found[at] for at in set(range(len(found))).difference(judged)]
        codes = self._in_place(judged, judges, jobs)
        again = [at for at in judged if self._is_open(at, codes.get(at, _ELSEWHERE))]
        codes |= try_each(again, self._with_new_import, self._patience, jobs)
        self.verdict.survivors = [found[at] for at in judged if codes[at] == _ALIVE]
        self.verdict.hung = [found[at] for at in judged if codes[at] < 0]

    def _is_open(self, at: int, code: int) -> bool:
        """Whether a trial in place did not decide: a constant may have been copied elsewhere."""
        return code > _KILLED or (code == _ALIVE and self._is_imported(at))

    def _is_imported(self, at: int) -> bool:
        return self._found[at].line in self._unchanged.imported

    def _patience(self, at: int) -> float:
        return self._unchanged.patience(self._unchanged.judges(self._found[at].line))

    def _in_place(self, judged: Sequence[int], judges: Sequence[str], jobs: int) -> Codes:
        def try_them(collected: Collected, output: Path) -> Codes:
            def begin(at: int, patience: float) -> int:
                return fork(lambda: self._planted(collected, at), output, patience)

            return try_each(judged, begin, self._patience, jobs)

        return tried_in_place(judges, self.verdict.module, self._folder, try_them)

    def _planted(self, collected: Collected, at: int) -> int:
        mutant = self._found[at]
        code = mutant.compiled(self._path)
        if not collected.plant(code, imported=self._is_imported(at)):
            return _ELSEWHERE
        return collected.run(self._unchanged.judges(mutant.line))

    def _with_new_import(self, at: int, patience: float) -> int:
        mutant = self._found[at]
        tests = self._unchanged.judges(mutant.line)
        planted = Planted(self.verdict.module, self._path, mutant.compiled(self._path))
        return fork(lambda: judged(planted, tests), self._folder / f"mutant-{at}", patience)


def _sweep() -> None:
    """Remove what forks that have ended left in a shared PostgreSQL server."""
    server = shared_postgres()
    if server:
        server.sweep()


def try_each(
    mutants: Sequence[int], begin: _Begin, patience: Callable[[int], float], jobs: int
) -> Codes:
    """Begin a process for each mutant, `jobs` at once; how each ended."""
    codes: Codes = {}
    running: list[_Running] = []

    def look() -> None:
        time.sleep(LOOK_SECONDS)
        for one in list(running):
            code = ended(one.pid, one.deadline)
            if code is not None:
                codes[one.at] = code
                running.remove(one)
                if len(codes) % SWEPT_AFTER == 0:
                    _sweep()

    for at in mutants:
        while len(running) >= jobs:
            look()
        seconds = patience(at)
        running.append(_Running(at, begin(at, seconds), time.monotonic() + seconds))
    while running:
        look()
    return codes
