"""The entry points of `python -m service` and of the `outbox` script.

The worker is imported without the server's modules, so that its process stays under 100 MiB for a
document of any size.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import ModuleType

_INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main() -> None:
    """Run the command that the arguments name."""
    is_worker = sys.argv[1:2] == ["worker"] and "--help" not in sys.argv
    _loaded("service.cli.inngest_worker" if is_worker else "service.cli.main").main()


def outbox() -> None:
    """Run the `outbox` script. Ctrl-C ends it at any time without a traceback."""
    try:
        _loaded("service.cli.outbox.main").main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _loaded(name: str) -> ModuleType:
    """The module, imported with the garbage collector off, which took a sixth of the start.

    Objects that modules make at import live as long as the process.
    """
    gc.disable()
    module = import_module(name)
    gc.freeze()
    gc.enable()
    return module


if __name__ == "__main__":
    main()
