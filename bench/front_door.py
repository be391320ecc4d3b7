"""The README's few figures, from the results of the bench.

Each row is found by its beginning, so that rows of other benchmarks stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARSE = "| a handler that parses the body and stores nothing |"
SDK = "| a handler that waits for the Inngest SDK's `send` |"
LOOP = "| a loop that sends with the SDK, 500 events at a time |"
DIRECT = "| a direct send, both idle |"


def rows(results: Mapping[str, Any]) -> dict[str, str]:
    """The beginning of each row, and the row with the figures of `results`."""
    figures = {key: one["figure"] for key, one in results["goals"].items()}
    said = {
        PARSE: f"takes {figures['posts_to_parse']:.0%} of its posts a second",
        SDK: f"takes {figures['posts_to_sdk']:.1f} times as many posts a second",
        LOOP: f"delivers a backlog {figures['drain_to_sdk']:.1f} times as fast",
        DIRECT: f"takes {figures['idle_to_direct']:.1f} times as long until the event arrives",
    }
    return {begins: f"{begins} {words} |" for begins, words in said.items()}


def with_figures(page: str, results: Mapping[str, Any]) -> str:
    """The page with the figures of `results`. Raises ValueError when it lacks a row."""
    lines = page.splitlines(keepends=True)
    for begins, row in rows(results).items():
        [at] = [at for at, line in enumerate(lines) if line.startswith(begins)]
        lines[at] = f"{row}\n"
    return "".join(lines)
