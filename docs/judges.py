"""The judges of the tests: bugs that each trial must find, rooms that have mutants."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.planted.__main__ import bugs
from tests.support.linearizability.planted import PLANTED as VIEWS
from tests.support.linearizability.planted import SQLITE as SQLITE_VIEWS
from tests.support.power_cuts.planted import DEVICE_BUGS
from tests.support.power_cuts.planted import PLANTED as POWER_CUTS
from tests.support.simulation.planted import PLANTED as HISTORIES

ROOT = Path(__file__).parents[1]


def trial_rows() -> Iterator[tuple[str, str, str]]:
    """Each trial with its folder and the number of planted bugs that it must find."""
    yield "power cuts", "`tests/support/power_cuts`", f"{len(POWER_CUTS)}"
    yield "device faults", "`tests/support/power_cuts`", f"{len(DEVICE_BUGS)}"
    yield "histories", "`tests/support/simulation`", f"{len(HISTORIES)}"
    yield (
        "operators' view",
        "`tests/support/linearizability`",
        f"{len(VIEWS | SQLITE_VIEWS)}",
    )
    yield "tests near the code", "`tests/planted`", f"{len([*bugs([])])}"


def room_rows() -> Iterator[tuple[str, str, str]]:
    """Each room of the service with its modules that have mutants, and its hand-made bugs.

    Rooms without either share the last row.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    mutated = settings["tool"]["mutmut"]["only_mutate"]
    made = Counter(_room(bug.file) for bug in bugs([]) if bug.file.startswith("service/"))
    judged = sorted({_room(path) for path in mutated} | made.keys())
    for room in judged:
        named = [_within(path) for path in mutated if _room(path) == room]
        yield f"`{room}`", ", ".join(named) or "none", f"{made[room] or 'none'}"
    folders = {path.parent.name for path in (ROOT / "service").glob("*/__init__.py")}
    yield ", ".join(f"`{room}`" for room in sorted(folders - {*judged})), "none", "none"


def _room(path: str) -> str:
    """The folder of a module right below `service/`, or the module itself."""
    return path.split("/")[1].removesuffix(".py")


def _within(path: str) -> str:
    """The module's path in its room, as `sqlite/writer`."""
    return path.removesuffix(".py").split("/", 2)[-1]
