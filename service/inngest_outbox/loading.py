"""Imports with the garbage collector off, which takes a sixth of a start.

A process that serves has nothing left to load, since a newer version may be installed while it
runs.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import in this context; what modules make at import lives as long as the process."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
