"""Modules that one command or role needs, loaded by their names before its work begins.

The invariant: a process that serves finds nothing left to load, since a newer version may be
installed while it runs.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any


def loaded(name: str) -> Any:
    """The module, imported with the garbage collector off, which took a sixth of the start.

    Objects that modules make at import live as long as the process.
    """
    gc.disable()
    module = import_module(name)
    gc.freeze()
    gc.enable()
    return module
