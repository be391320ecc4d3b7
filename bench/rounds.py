"""Rounds: what is compared is measured in turns, and compared within each round.

A ratio is the median of the rounds' ratios, so that a neighbour's busy second spoils one round,
not the result.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Figures = dict[str, float]


@dataclass
class Run:
    """One run: how thorough, where its files go, what it found.

    `figures` are the goals' keys, `details` everything else that is worth keeping.
    """

    quick: bool
    folder: Path
    figures: Figures = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 5

    @property
    def seconds(self) -> float:
        return 1 if self.quick else 2

    def found(self, key: str, figure: float) -> None:
        self.figures[key] = figure
        self.say(f"{key} = {figure:.4g}")

    def say(self, sentence: str) -> None:
        print(f"  [{time.perf_counter():7.1f} s] {sentence}", flush=True)


def in_turns(rounds: int, measures: dict[str, Callable[[], Figures]]) -> dict[str, list[Figures]]:
    """Each of `measures`, one after the other, `rounds` times."""
    found: dict[str, list[Figures]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def ratio(above: Sequence[Figures], below: Sequence[Figures], figure: str) -> float:
    """The median of the rounds' ratios of `figure`."""
    pairs = zip(above, below, strict=True)
    return statistics.median(one[figure] / other[figure] for one, other in pairs)


def median(found: Sequence[Figures], figure: str) -> float:
    return statistics.median(one[figure] for one in found)


def medians(found: dict[str, list[Figures]], digits: int = 1) -> dict[str, Figures]:
    """Of what `in_turns` found: each figure's median, rounded."""
    return {
        name: {key: round(median(rounds, key), digits) for key in rounds[0]}
        for name, rounds in found.items()
    }
