"""`python -m tests.support.mutants`: tries every mutant that pyproject.toml names, by mutmut.

Prints the survivors, for a person to judge: the code of some does the same. A mutant that hangs
counts as killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter

from tests.support.proof_table import add_row

_SURVIVED = {"survived", "no tests"}


def main() -> None:
    shutil.rmtree("mutants", ignore_errors=True)  # verdicts and tests of an earlier state
    subprocess.run(
        ["mutmut", "run", "--max-children", str(os.cpu_count())], check=True, env=_environment()
    )
    listed = subprocess.run(
        ["mutmut", "results", "--all", "true"],
        check=True,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    verdicts = dict(line.strip().split(": ") for line in listed.stdout.splitlines() if ": " in line)
    survivors = [name for name, verdict in verdicts.items() if verdict in _SURVIVED]
    for name in survivors:
        subprocess.run(["mutmut", "show", name], check=True, env=_environment())
    print(f"{len(verdicts)} mutants: {dict(Counter(verdicts.values()))}")
    killed = len(verdicts) - len(survivors)
    add_row("mutants", f"{len(verdicts)} mutants", f"{killed} of {len(verdicts)}")


def _environment() -> dict[str, str]:
    tools = os.path.dirname(sys.executable)  # noqa: PTH120
    return os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


if __name__ == "__main__":
    main()
