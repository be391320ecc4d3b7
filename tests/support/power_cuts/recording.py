"""Records of what a build of the service does to its disk under a load.

Each load runs in a fork of this process, which has the shim of `disk_shim.c` preloaded.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from tests.support.disk_shim import Operation, read_record
from tests.support.power_cuts.planted import PLANTED
from tests.support.power_cuts.small_files import keep_files_small

# Each is a module `<name>_load` with a function `run`, imported where it runs.
LOADS = ("posts", "service", "backup", "migration", "move", "restore")
_FORK = multiprocessing.get_context("fork")


class Recording(NamedTuple):
    """The operations of one load below the folder `root`."""

    load: str
    root: str
    operations: list[Operation]


class LoadError(Exception):
    """A load has not come to its end."""


def record(folder: Path, name: str) -> Recording:
    """The record of a load, or of a planted bug under its load; made in the new folder `folder`.

    Raises LoadError.
    """
    load, plant = PLANTED.get(name, (name, None))
    root = folder / "disk"
    root.mkdir(parents=True)
    recorded = _FORK.Process(target=_run, args=(folder, load, plant))
    recorded.start()
    recorded.join()
    if recorded.exitcode:
        raise LoadError(name)
    return Recording(load, str(root), read_record(folder / "record"))


def _run(folder: Path, load: str, plant: Callable[[], None] | None) -> None:
    keep_files_small()
    if plant:
        plant()
    os.environ["DISK_SHIM_RECORD"] = str(folder / "record")
    os.environ["DISK_SHIM_FAULTS"] = str(folder / "faults")
    os.environ["DISK_SHIM_ROOT"] = str(folder / "disk")
    import_module(f"{__package__}.{load}_load").run(folder / "disk")
