"""Rows and bytes by owner, and in all."""

from __future__ import annotations

from typing import Self

from service.outbox.limits import Held

_NOTHING: Held = (0, 0)


class Tally:
    """Adds up how many rows wait and how many bytes are stored; parts may be negative."""

    def __init__(self, held: dict[str, Held] | None = None) -> None:
        self._held = held or {}
        self.rows = sum(rows for rows, _ in self._held.values())
        self.bytes = sum(size for _, size in self._held.values())

    def of(self, owner: str) -> Held:
        """The rows and bytes of one owner."""
        return self._held.get(owner, _NOTHING)

    def add(self, owner: str, rows: int, size: int) -> None:
        """Add rows and bytes, or subtract them when negative."""
        rows_before, size_before = self.of(owner)
        held = (rows_before + rows, size_before + size)
        if held == _NOTHING:
            self._held.pop(owner, None)
        else:
            self._held[owner] = held
        self.rows += rows
        self.bytes += size

    def owners(self) -> set[str]:
        """The owners with rows."""
        return set(self._held)

    def subtract(self, other: Tally) -> None:
        """Subtract `other`."""
        for owner, (rows, size) in other._held.items():
            self.add(owner, -rows, -size)

    def copy(self) -> Self:
        """A copy that changes alone."""
        return type(self)(self._held.copy())
