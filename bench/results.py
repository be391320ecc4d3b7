"""The results of the bench: `results.json`, the documentation's table and pictures, the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import front_door, goals
from bench.rounds import Run

RESULTS = Path(__file__).parent / "results.json"


README = Path(__file__).parents[1] / "README.md"


def write(
    run: Run, pages: Path, *, keep: bool, results: Path = RESULTS, readme: Path = README
) -> None:
    """Write what `run` found; with `keep`, older figures that it did not measure stay.

    The machine is then that of the older run.
    """
    kept: dict[str, Any] = json.loads(results.read_text()) if keep else {}
    figures = {key: one["figure"] for key, one in kept.get("goals", {}).items()} | run.figures
    verdicts = {
        goal.key: {
            "goal": goal.limit_shown,
            "figure": round(figures[goal.key], 4),
            "met": goal.met_by(figures[goal.key]),
        }
        for goal in goals.GOALS
        if goal.key in figures
    }
    machine = kept.get("machine", run.details.get("machine"))
    found = {**kept, **run.details, "goals": verdicts, "machine": machine}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
    results.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    # Who only reads the results does without the half second that drawing takes to import.
    from bench import pictures

    pictures.draw(run.details, pages)
    goals.put_into(pages / "performance.md", figures)
    readme.write_text(front_door.with_figures(readme.read_text(), found))
