"""`python -m service` and the `outbox` script: hand over to a command.

The worker is imported by itself: without what only the server needs, its process stays under
100 MiB whatever the size of the document that it reads.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import ModuleType


def main() -> None:
    """Run the command that the arguments name."""
    is_worker = sys.argv[1:2] == ["worker"] and "--help" not in sys.argv
    _loaded("service.cli.inngest_worker" if is_worker else "service.cli.main").main()


def outbox() -> None:
    """Run the `outbox` script."""
    _loaded("service.cli.outbox.main").main()


def _loaded(name: str) -> ModuleType:
    """The module, loaded without a search for garbage, which took a sixth of the start.

    What modules make while they load stays as long as the process.
    """
    gc.disable()
    module = import_module(name)
    gc.freeze()
    gc.enable()
    return module


if __name__ == "__main__":
    main()
