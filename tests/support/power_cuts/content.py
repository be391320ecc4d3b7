"""The content of a file as blocks, with a mark by which equal contents are known.

A copy costs little, so that thousands of variants of one file can be made and compared.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 4096
_ZEROS = bytes(BLOCK)


class Content:
    """Bytes; a block that is missing is zeros."""

    def __init__(self, other: Content | None = None) -> None:
        """Empty, or as `other` is."""
        self.size = other.size if other else 0
        self._blocks = dict(other._blocks) if other else dict[int, bytes]()
        self._marks = dict(other._marks) if other else dict[int, int]()
        self._unmarked = set(other._unmarked) if other else set[int]()

    def write(self, at: int, data: bytes) -> None:
        end = at + len(data)
        for number in range(at // BLOCK, -(-end // BLOCK)):
            start = number * BLOCK
            first, last = max(at, start), min(end, start + BLOCK)
            old = self._blocks.get(number, _ZEROS)
            new = old[: first - start] + data[first - at : last - at] + old[last - start :]
            self._put(number, new)
        self.size = max(self.size, end)

    def resize(self, size: int) -> None:
        """Cut the end off, or add zeros."""
        for number in [one for one in self._blocks if (one + 1) * BLOCK > size]:
            kept = self._blocks[number][: max(0, size - number * BLOCK)]
            self._put(number, kept.ljust(BLOCK, b"\x00"))
        self.size = size

    @property
    def mark(self) -> tuple[int, int]:
        """Equal for equal contents; for others different, by all odds."""
        for number in self._unmarked:
            block = self._blocks.get(number)
            self._marks[number] = 0 if block is None else _mark(number, block)
        self._unmarked.clear()
        mark = 0
        for one in self._marks.values():
            mark ^= one
        return self.size, mark

    def save(self, path: Path) -> None:
        """Make a file of it."""
        end = max(self._blocks, default=-1) + 1
        with path.open("wb") as file:
            file.write(b"".join([self._blocks.get(one, _ZEROS) for one in range(end)]))
            file.truncate(self.size)

    def _put(self, number: int, block: bytes) -> None:
        self._unmarked.add(number)
        if block == _ZEROS:
            self._blocks.pop(number, None)
        else:
            self._blocks[number] = block


def _mark(number: int, block: bytes) -> int:
    digest = hashlib.blake2b(block, digest_size=16, salt=number.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little")
