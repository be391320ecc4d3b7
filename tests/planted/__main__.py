"""`python -m tests.planted [WORD…]`: plants bugs in a copy of the code, runs the tests near each.

The bugs stand in the TOML files beside this one, each as a table with its name: `file`, `old` (a
text that stands there once), `new`, and `tests` (what pytest is asked for). A WORD picks bugs by
their names. Prints the survivors and the stale ones, and exits with 1 when a bug survives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.proof_table import add_row

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def is_stale(self, tree: Path) -> bool:
        """True when the text does not stand in the file once."""
        path = tree / self.file
        return not path.is_file() or path.read_text().count(self.old) != 1

    def is_found(self, tree: Path) -> bool:
        """True when a test near the bug fails or hangs; the file is put back afterwards."""
        path = tree / self.file
        sound = path.read_text()
        path.write_text(sound.replace(self.old, self.new))
        try:
            return _fails(tree, self.tests.split())
        finally:
            path.write_text(sound)


def bugs(words: list[str]) -> Iterator[Bug]:
    """The bugs whose names have one of the words; all without words."""
    for file in sorted(Path(__file__).parent.glob("*.toml")):
        for name, bug in tomllib.loads(file.read_text()).items():
            if not words or any(word in name for word in words):
                yield Bug(name, **bug)


def main(words: list[str]) -> int:
    wanted = list(bugs(words))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "copy"
        _copy(tree)
        stale = [bug for bug in wanted if bug.is_stale(tree)]
        tried = [bug for bug in wanted if bug not in stale]
        survivors = [bug for bug in tried if not _told(bug, found=bug.is_found(tree))]
    for bug in stale:
        print(f"stale     {bug.name}")
    found = len(tried) - len(survivors)
    print(f"{len(tried)} tried, {found} found, {len(survivors)} survive, {len(stale)} stale")
    add_row("planted bugs", f"{len(tried)} bugs", f"{found} of {len(tried)}", "-")
    return 1 if survivors else 0


def _told(bug: Bug, *, found: bool) -> bool:
    print(f"{'found' if found else 'SURVIVES':9} {bug.name}", flush=True)
    return found


def _copy(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    for name in listed.stdout.split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(source.read_bytes())


def _fails(tree: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not soak", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}: exit code {done.returncode}")
    return bool(done.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
