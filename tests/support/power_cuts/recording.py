"""Records of what a build of the service does to its disk under a load.

Each load runs in a fork of this process, which has the shim of `disk_shim.c` preloaded.
"""

from __future__ import annotations

import multiprocessing
import os
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from tests.support.disk_shim import Operation, read_record
from tests.support.power_cuts.small_files import keep_files_small

_FORK = multiprocessing.get_context("fork")


class Recording(NamedTuple):
    """The operations of one load below the folder `root`."""

    load: str
    root: str
    operations: list[Operation]


class Fault(NamedTuple):
    """The sync or write of the database or its log that fails: `S12` is the 12th sync.

    `kill_after` so many later changes the process is killed; None: it goes on to its end.
    """

    nth: str
    kill_after: int | None = None


class LoadError(Exception):
    """A load has not come to its end."""


def record(folder: Path, load: str, fault: Fault | None = None) -> Recording:
    """The record of a load, made in the new folder `folder`.

    A load is a module `<name>_load` with a function `run`, imported where it runs. One that its
    `fault` has killed is begun again, on a device that is well. Raises LoadError.
    """
    root = folder / "disk"
    root.mkdir(parents=True)
    killed = _exit_code(folder, load, fault)
    if killed and fault and fault.kill_after is not None:
        killed = _exit_code(folder, load, None)
    if killed:
        raise LoadError(load)
    return Recording(load, str(root), read_record(folder / "record"))


def _exit_code(folder: Path, load: str, fault: Fault | None) -> int | None:
    recorded = _FORK.Process(target=_run, args=(folder, load, fault))
    recorded.start()
    recorded.join()
    return recorded.exitcode


def _run(folder: Path, load: str, fault: Fault | None) -> None:
    keep_files_small()
    if fault:
        os.environ["DISK_SHIM_NTH"] = fault.nth
        if fault.kill_after is not None:
            os.environ["DISK_SHIM_KILL"] = str(fault.kill_after)
    os.environ["DISK_SHIM_RECORD"] = str(folder / "record")
    os.environ["DISK_SHIM_FAULTS"] = str(folder / "faults")
    os.environ["DISK_SHIM_ROOT"] = str(folder / "disk")
    import_module(f"{__package__}.{load}_load").run(folder / "disk")
