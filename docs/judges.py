"""The judges of the tests: bugs that each trial must find, rooms that have mutants."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.planted.__main__ import bugs

ROOT = Path(__file__).parents[1]
_TRIALS = {
    "power cuts": "power_cuts",
    "device faults": "power_cuts.device_faults",
    "histories": "simulation",
    "histories of a journal": "journal.history",
    "operators' view": "linearizability",
}


def trial_rows() -> Iterator[tuple[str, str, str]]:
    """Each trial with its folder and the number of planted bugs that it must find."""
    judged = Counter(trial.split()[0] for bug in bugs(trials=True) for trial in bug.trials)
    for name, module in _TRIALS.items():
        yield name, f"`tests/support/{module.split('.')[0]}`", f"{judged[module]}"
    yield "tests near the code", "`tests/planted`", f"{len([*bugs()])}"


def room_rows() -> Iterator[tuple[str, str, str]]:
    """Each room of the service with its modules that have mutants, and its hand-made bugs.

    Rooms without either share the last row.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    mutated = settings["tool"]["mutmut"]["only_mutate"]
    made = Counter(_room(bug.file) for bug in bugs() if bug.file.startswith("service/"))
    judged = sorted({_room(path) for path in mutated} | made.keys())
    for room in judged:
        named = [_within(path) for path in mutated if _room(path) == room]
        yield f"`{room}`", ", ".join(named) or "none", f"{made[room] or 'none'}"
    folders = {
        path.parent.name for path in (ROOT / "service" / "inngest_outbox").glob("*/__init__.py")
    }
    yield ", ".join(f"`{room}`" for room in sorted(folders - {*judged})), "none", "none"


def _room(path: str) -> str:
    """The folder of a module right below `service/inngest_outbox/`, or the module itself."""
    return path.split("/")[2].removesuffix(".py")


def _within(path: str) -> str:
    """The module's path in its room, as `sqlite/writer`."""
    return path.removesuffix(".py").split("/", 3)[-1]
