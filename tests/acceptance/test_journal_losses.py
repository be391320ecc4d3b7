"""The machine is gone, no event is: histories by seed, and real kills with the files removed.

JOURNAL_HISTORIES and JOURNAL_LOSSES say how many. A failure names its seed, and the same seed lives
through nearly the same again: `python -m tests.support.journal.history SEED 1`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HISTORIES = int(os.environ.get("JOURNAL_HISTORIES", "6"))


@pytest.mark.timeout(7200)
def test_no_history_loses_an_answered_event_or_gives_an_id_twice() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.journal.history"]
    done = subprocess.run(
        [*command, "0", str(HISTORIES)], capture_output=True, text=True, check=False, timeout=7200
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
