"""`python -m service`: hands over to a command.

The worker is imported by itself: without what only the server needs, its process stays under
100 MiB whatever the size of the document that it reads.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Run the command that the arguments name."""
    alone = sys.argv[1:] == ["worker"]
    import_module("service.cli.worker" if alone else "service.cli.commands").main()


if __name__ == "__main__":
    main()
