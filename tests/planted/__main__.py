"""`python -m tests.planted [--trials] [WORD…]`: plants bugs in a copy of the code, and judges it.

The bugs stand in the TOML files beside this one, each as a table with its name: `file`, `old` (a
text that stands there once), `new`, and who must find it: `tests` (what pytest is asked for), or
with `--trials` each of `trials` (a module of `tests.support` and its arguments, which exits with
`FOUND`). A WORD picks bugs by their names. Prints the survivors and the stale ones, and exits with
1 when a bug survives, is stale for a trial, or has no tests that run. Several bugs are judged at
once, each in a copy of its own: their tests mostly wait.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.support.proof_table import FOUND, add_row

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 300
_TRIAL_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug."""

    name: str
    file: str
    old: str
    new: str
    tests: str = ""
    trials: tuple[str, ...] = ()

    def is_stale(self, tree: Path) -> bool:
        """True when the text does not stand in the file once."""
        path = tree / self.file
        return not path.is_file() or path.read_text().count(self.old) != 1

    def is_found(self, tree: Path) -> bool:
        """True when its tests fail or hang, or each of its trials finds it.

        The file is put back afterwards. Raises RuntimeError where none of its tests can run.
        """
        path = tree / self.file
        sound = path.read_text()
        path.write_text(sound.replace(self.old, self.new))
        try:
            if self.tests:
                return _fails(tree, self.tests.split())
            return all(_finds(tree, trial.split()) for trial in self.trials)
        finally:
            path.write_text(sound)
            # What was compiled within the same second would pass for the sound text.
            shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


def bugs(words: Sequence[str] = (), *, trials: bool = False) -> Iterator[Bug]:
    """The bugs for tests, or for trials, whose names have one of the words; all without words."""
    for file in sorted(Path(__file__).parent.rglob("*.toml")):
        for name, bug in tomllib.loads(file.read_text()).items():
            if trials is ("trials" in bug) and (not words or any(word in name for word in words)):
                yield Bug(name, **bug)


def main(words: list[str]) -> int:
    trials = words[:1] == ["--trials"]
    wanted = list(bugs(words[1:] if trials else words, trials=trials))
    stale = [bug for bug in wanted if bug.is_stale(ROOT)]
    tried = [bug for bug in wanted if bug not in stale]
    workers = 1 if trials else 2 * (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        trees = Queue[Path]()
        for number in range(workers):
            trees.put(tree := Path(folder) / str(number))
            _copy(tree)
        verdicts = list(pool.map(lambda bug: _judged(bug, trees), tried))
    for bug in stale:
        print(f"stale     {bug.name}")
    found = verdicts.count(True)
    survivors = len(tried) - found
    print(f"{len(tried)} tried, {found} found, {survivors} survive, {len(stale)} stale")
    kind = "bugs for trials" if trials else "bugs for tests"
    add_row(kind, f"{len(wanted)} bugs", f"{found} of {len(wanted)}")
    return 1 if survivors or (trials and stale) else 0


def _judged(bug: Bug, trees: Queue[Path]) -> bool:
    """True for a bug that is found, in one of the copies."""
    tree = trees.get()
    try:
        found, said = bug.is_found(tree), ""
    except RuntimeError as error:
        found, said = False, f": {error}"
    trees.put(tree)
    print(f"{'found' if found else 'SURVIVES':9} {bug.name}{said}", flush=True)
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
    command = ["pytest", "-q", "-x", "-m", "not soak", *tests]
    try:
        code = _exit_code(tree, command, _PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    if code not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}: exit code {code}")
    return bool(code)


def _finds(tree: Path, trial: list[str]) -> bool:
    code = _exit_code(tree, [f"tests.support.{trial[0]}", *trial[1:]], _TRIAL_SECONDS)
    if code not in (0, FOUND):
        raise RuntimeError(f"{trial} could not run: exit code {code}")
    return code == FOUND


def _exit_code(tree: Path, module: list[str], seconds: float) -> int:
    """The exit code of a module that runs in the copy; raises TimeoutExpired."""
    return subprocess.run(
        [sys.executable, "-m", *module],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": f"{tree}:{tree}/service"},
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=seconds,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
