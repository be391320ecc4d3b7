"""Huge pages of processes, where this machine has them."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_COLLAPSES = (6, 1)


def can_collapse() -> bool:
    """Whether this kernel makes huge pages at once, and is allowed to."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    if not _POLICY.exists() or not found or "[never]" in _POLICY.read_text():
        return False
    return (int(found[1]), int(found[2])) >= _COLLAPSES


def huge_kib(pid: int) -> int:
    """How much memory of a process is in huge pages."""
    [line] = re.findall(r"AnonHugePages:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(line)
