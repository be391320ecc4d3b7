"""One run of tests in a process of its own, with a module as its mutant says.

The process is a fork of one that has imported pytest and what the tests need of other packages, but
nothing of this repository: the module is read as it is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import coverage
import hypothesis
import pytest

# How many times longer than on an idle machine a test may wait before it counts as one that hangs.
PATIENCE = float(os.environ.get("PATIENCE", "1"))
QUIET = (
    "-q",
    "-x",
    "--no-header",
    "-p",
    "no:randomly",
    "-p",
    "no:cacheprovider",
    "-W",
    "default",
    f"--timeout={8 * PATIENCE}",
)
UNCHANGED = f"--timeout={60 * PATIENCE}"  # without a change a slow test is none that hangs
EXAMPLES = 40
LOOK_SECONDS = 0.01
_LEAST_SECONDS = 10.0 * PATIENCE
_TIMES = 6.0


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutant where the module is imported."""

    def __init__(self, module: str, path: str, code: CodeType) -> None:
        self._module = module
        self._path = path
        self._code = code

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


@dataclass
class Baseline:
    """What the tests do without a change.

    `tests` are their ids, `seconds` how long each took, `lines` which lines of the module each
    ran; lines that no test ran may have run when the module was imported (`imported`).
    """

    tests: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)
    imported: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    passed: bool = False
    said: str = ""

    def judges(self, line: int) -> list[str]:
        """The tests that ran this line, quickest first; all for a line that an import runs."""
        found = [test for test in self.tests if line in self.lines.get(test, ())]
        if line in self.imported:
            found = list(self.tests)
        return sorted(found, key=lambda test: self.seconds.get(test, 0.0))

    def patience(self, tests: Sequence[str]) -> float:
        """Seconds within which these tests end, unless one hangs."""
        return _LEAST_SECONDS + _TIMES * sum(self.seconds[test] for test in tests)


class Watcher:
    """A plugin of pytest that says which test runs, and how long each took."""

    def __init__(self, watched: coverage.Coverage) -> None:
        self._watched = watched
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._watched.switch_context(item.nodeid)
        began = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - began
            self._watched.switch_context("")


def baseline(path: Path, arguments: Sequence[str], answer: Path) -> None:
    """Run the tests unchanged and write what they did; to be called in a fork."""
    settle_examples()
    watched = coverage.Coverage(
        data_file=None, config_file=False, include=[str(path)], branch=False
    )
    watcher = Watcher(watched)
    watched.start()
    code = pytest.main([*QUIET, UNCHANGED, *arguments], plugins=[watcher])
    watched.stop()
    data = watched.get_data()
    found = Baseline(passed=code == pytest.ExitCode.OK, seconds=watcher.seconds)
    found.tests = list(watcher.seconds)
    for line, contexts in data.contexts_by_lineno(str(path)).items():
        for context in contexts:
            if context:
                found.lines.setdefault(context, []).append(line)
            else:
                found.imported.append(line)
    found.modules = [name for name, module in list(sys.modules.items()) if not _is_ours(module)]
    answer.write_text(json.dumps(found.__dict__))


def _is_ours(module: ModuleType) -> bool:
    """Whether the module is part of this repository."""
    file = getattr(module, "__file__", None) or ""
    return file.startswith(str(Path.cwd())) and "site-packages" not in file


def judged(planted: Planted, tests: Sequence[str]) -> int:
    """Whether a test fails with the change: pytest's exit code; to be called in a fork.

    Tests run with all of their parameters, whose values may be the mutant's.
    """
    settle_examples()
    sys.meta_path.insert(0, planted)
    return int(pytest.main([*QUIET, *dict.fromkeys(test.partition("[")[0] for test in tests)]))


def settle_examples() -> None:
    """The same few examples in each run, none made smaller; the suite's profile builds on it."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", phases=phases, max_examples=EXAMPLES, derandomize=True, database=None
    )
    hypothesis.settings.load_profile("mutants")


def fork(work: Callable[[], int | None], output: Path, cpu_seconds: float | None) -> int:
    """Run in a fork, as the leader of a group of its own, with bounded processor time; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        if cpu_seconds is not None:
            most = int(cpu_seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        with output.open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = work() or 0
    finally:
        os._exit(code)


def ended(pid: int, deadline: float) -> int | None:
    """The exit code of a fork that has ended; -1 where it was ended; None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        end_group(pid)
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() < deadline:
        return None
    end_group(pid)
    os.waitpid(pid, 0)
    return -1


def wait_for(pid: int, deadline: float = math.inf) -> None:
    """Wait for a fork, which is ended at the deadline."""
    while ended(pid, deadline) is None:
        time.sleep(LOOK_SECONDS)


def end_group(pid: int) -> None:
    """End what a fork has left running."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
