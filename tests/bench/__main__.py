"""`python -m tests.bench`: measure the service beside what it replaces."""

from __future__ import annotations

import argparse
import sys

from tests.bench import load, posts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", help="parts, comma-separated")
    options = parser.parse_args()
    if not load.WRK:
        print(load.HOW_TO_GET_WRK)
    posts.run(quick=options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
