"""The entry points of `inngest-outbox`, which is `python -m service`, and of `outbox`."""

from __future__ import annotations

import os
import sys

from service.loading import loading

_INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main() -> None:
    """Run the command that the arguments name."""
    if not sys.stderr:  # it is closed: no other file may take its descriptor
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    with loading():
        from service.processes.main import main as run
    run()


def outbox() -> None:
    """Run the `outbox` script. Ctrl-C ends it at any time without a traceback."""
    try:
        with loading():
            from service.console.commands.main import main as run
        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
