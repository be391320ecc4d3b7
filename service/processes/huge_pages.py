"""Huge pages for the memory that lives as long as the process.

A process that has been idle for a moment finds few of its pages in the processor's table of
addresses, and in a virtual machine each other one costs a walk through two sets of page tables. In
pages of 2 MiB instead of 4 KiB the heap of a process needs a few dozen entries.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

_SECONDS_AFTER_START = 1.0  # it takes some tens of milliseconds
_PAGE_BYTES = 2 << 20
_HUGEPAGE, _COLLAPSE = 14, 25  # Linux' MADV_HUGEPAGE, and MADV_COLLAPSE, which 6.1 and later know
_MAPS = Path("/proc/self/maps")
_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FORBIDDEN = "[never]"
_is_heap = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?$", re.MULTILINE
).finditer

_Advise = Callable[[int, int, int], int]


def use_huge_pages_soon() -> None:
    """Put the heap into huge pages a second after the start, in a thread. Linux only.

    Does nothing where the machine's administrator forbids huge pages.
    """
    timer = threading.Timer(_SECONDS_AFTER_START, use_huge_pages)
    timer.daemon = True
    timer.start()


def heap_ranges(maps: str) -> Iterator[tuple[int, int]]:
    """The beginning and the length of each heap that has room for a huge page, of /proc's `maps`.

    >>> list(heap_ranges("555500000000-555500400000 rw-p 00000000 00:00 0      [heap]"))
    [(93823560581120, 4194304)]
    >>> list(heap_ranges("7f0000000000-7f0000400000 rw-p 00000000 00:00 0      [stack]"))
    []
    """
    for found in _is_heap(maps):
        begin, end = int(found[1], 16), int(found[2], 16)
        if end - begin >= _PAGE_BYTES:
            yield begin, end - begin


def collapse(maps: str, advise: _Advise) -> None:
    """Ask the kernel by `advise`, which is madvise, for huge pages: from now on, and at once."""
    for begin, length in heap_ranges(maps):
        advise(begin, length, _HUGEPAGE)
        advise(begin, length, _COLLAPSE)


def use_huge_pages(policy: Path = _POLICY) -> None:
    """Put the heap into huge pages, as far as the kernel can and its `policy` allows."""
    with contextlib.suppress(OSError, AttributeError):
        if _FORBIDDEN not in policy.read_text():
            collapse(_MAPS.read_text(), _madvise())


def _madvise() -> _Advise:
    ctypes = import_module("ctypes")
    advise: _Advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]  # type: ignore[attr-defined]
    return advise
