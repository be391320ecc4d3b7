"""The README's few figures, from the results of the bench.

Each row is found by its beginning, so that rows of other benchmarks stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SDK = "| a handler that awaits the Inngest SDK's `send` |"
_DIRECT = "| a direct send from an idle handler |"


def rows(results: Mapping[str, Any]) -> dict[str, str]:
    """The beginning of each row, and the row with the figures of `results`."""
    goals = results["goals"]
    said = {
        "| a handler that only parses the body |": (
            f"{goals['posts_to_parse']['figure']:.2f} of its posts per second"
        ),
        _SDK: f"{goals['posts_to_sdk']['figure']:.1f} times its posts per second",
        "| a loop of the SDK's batches of 500 |": (
            f"drains a backlog {goals['drain_to_sdk']['figure']:.1f} times as fast"
        ),
        _DIRECT: f"the event takes {goals['idle_to_direct']['figure']:.1f} times as long to arrive",
    }
    return {begins: f"{begins} {words} |" for begins, words in said.items()}


def with_figures(page: str, results: Mapping[str, Any]) -> str:
    """The page with the figures of `results`. Raises ValueError when it lacks a row."""
    lines = page.splitlines(keepends=True)
    for begins, row in rows(results).items():
        [at] = [at for at, line in enumerate(lines) if line.startswith(begins)]
        lines[at] = f"{row}\n"
    return "".join(lines)
