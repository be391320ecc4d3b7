"""The figures of a run: what was tried, what came out, whether it is what is promised."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from tests.stack.command import say

WIDTH = 46


@dataclass
class Table:
    """Rows in the order in which they were measured; printed as they come, and whole at the end."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def add(self, tried: str, figure: str, *, good: bool = True) -> None:
        """One row. `good` False is a broken promise."""
        self.rows.append((tried, figure, good))
        say(f"{tried}: {figure}{'' if good else '  <-- NOT AS PROMISED'}")

    @property
    def broken(self) -> list[str]:
        """The rows that show a broken promise."""
        return [f"{tried}: {figure}" for tried, figure, good in self.rows if not good]

    def show(self) -> None:
        """Print the table in Markdown."""
        lines = ["", f"| {'tried':{WIDTH}} | figure |", f"|{'-' * (WIDTH + 2)}|---|"]
        lines += [f"| {tried:{WIDTH}} | {figure} |" for tried, figure, _ in self.rows]
        sys.stdout.write("\n".join(lines) + "\n")
