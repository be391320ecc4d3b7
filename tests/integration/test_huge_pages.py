"""Huge pages: what is asked for, and what a process has afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.processes.huge_pages import collapse, heap_ranges
from tests.support.huge_pages import can_collapse

MAPS = """\
555500000000-555500400000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f00001ff000 rw-p 00000000 00:00 0
7f0000200000-7f0000400000 rw-p 00000000 00:00 0
7f1000000000-7f1000400000 r--p 00000000 00:00 0
7f2000000000-7f2000400000 rw-s 00000000 00:00 0
7f3000000000-7f3000400000 rw-p 00001000 fe:00 4711                       /usr/lib/a.so
7ffe00000000-7ffe00400000 rw-p 00000000 00:00 0                          [stack]
"""
MIB = 1 << 20
PROGRAM = """
import sys
from pathlib import Path
from service.processes.huge_pages import use_huge_pages
kept = [bytes(500) for _ in range(80_000)]
use_huge_pages(Path(sys.argv[1]))
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(*[line.split()[1] for line in lines if line.startswith("AnonHugePages")])
"""


def huge_kib(policy: Path) -> int:
    """How much of a process with 40 MB of small objects is in huge pages."""
    command = [sys.executable, "-c", PROGRAM, str(policy)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_only_private_memory_of_no_file_with_room_for_a_huge_page_is_the_heap() -> None:
    assert list(heap_ranges(MAPS)) == [(0x555500000000, 4 * MIB), (0x7F0000200000, 2 * MIB)]


def test_each_heap_is_to_be_in_huge_pages_from_now_on_and_at_once() -> None:
    advised: list[tuple[int, int, int]] = []

    def advise(*call: int) -> int:
        advised.append(call)  # type: ignore[arg-type]
        return -1

    collapse("\n".join(MAPS.splitlines()[:2]), advise)
    assert advised == [(0x555500000000, 4 * MIB, 14), (0x555500000000, 4 * MIB, 25)]


@pytest.mark.skipif(not can_collapse(), reason="this kernel makes no huge pages when asked")
def test_a_process_has_most_of_its_heap_in_huge_pages_unless_they_are_forbidden(
    tmp_path: Path,
) -> None:
    allowed, forbidden = tmp_path / "madvise", tmp_path / "never"
    allowed.write_text("always [madvise] never\n")
    forbidden.write_text("always madvise [never]\n")
    assert huge_kib(forbidden) == huge_kib(tmp_path / "missing") == 0
    assert huge_kib(allowed) > 20_000
