"""The entry points of `inngest-outbox`, which is `python -m inngest_outbox`, and of `outbox`."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import cast

from inngest_outbox.loading import loading

_INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main() -> None:
    """Run the command that the arguments name."""
    _open_streams()
    with loading():
        from inngest_outbox.processes.main import main as run
    run()


def outbox() -> None:
    """Run the `outbox` script. Ctrl-C ends it at any time without a traceback."""
    _open_streams()
    try:
        with loading():
            from inngest_outbox.console.commands.main import main as run
        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _open_streams() -> None:
    """Open those of the standard streams that are closed: no other file may take their place.

    What is printed is UTF-8, whatever the locale.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if not getattr(sys, name):
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    cast("TextIOWrapper", sys.stdout).reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
