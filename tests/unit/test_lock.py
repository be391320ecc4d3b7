"""The lock of the dependencies: versions and hashes only, whatever the machine that made it."""

from __future__ import annotations

import re
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"
PIN = re.compile(r"[a-z0-9._-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")


def test_the_lock_names_versions_and_hashes_and_no_address_or_path() -> None:
    lines = LOCK.read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(pins) > 100
    assert [line for line in pins if not PIN.fullmatch(line)] == []
