"""What operators are told was true at some moment between question and answer.

OPERATOR_HISTORIES says how many histories are tried on each store; a failure names its seed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.config.outbox_url import sqlite_path
from tests.support.linearizability.planted import PLANTED, SQLITE

FEW = 1
HISTORIES = int(os.environ.get("OPERATOR_HISTORIES", FEW))
BUGS = list(PLANTED)[:1] if HISTORIES == FEW else list(PLANTED)


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_what_operators_are_told_was_true_at_some_moment(store_url: str) -> None:
    url = "" if sqlite_path(store_url) else store_url
    bugs = BUGS if url or HISTORIES == FEW else [*BUGS, *SQLITE]
    command = [sys.executable, "-m", "tests.support.linearizability", str(HISTORIES), url, *bugs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=14400)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
