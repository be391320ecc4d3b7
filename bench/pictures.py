"""The two pictures of the documentation: load over connections, and an outage over time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_OURS, _OTHER, _SHADE = "#1f6feb", "#8b949e", "#f2dede"


def draw(details: Mapping[str, Any], folder: Path) -> None:
    """Draw what was measured; a part that was left out keeps its older picture."""
    # Without these, each run would change every line of the files.
    mpl.rcParams.update({"svg.hashsalt": "bench", "font.size": 9, "axes.grid": True})
    mpl.rcParams.update({"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
    if "curve" in details:
        _save(_connections(details["curve"]), folder / "connections.svg")
    if "outage" in details:
        _save(_outage(details["outage"]), folder / "outage.svg")


def _connections(curve: Mapping[str, Any]):
    figure, (rate, latency) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, label, colour in (
        ("parse", "handler that only parses", _OTHER),
        ("outbox", "durable, signed in, delivered", _OURS),
    ):
        across = [one["connections"] for one in curve[name]]
        rate.plot(across, _column(curve[name], "per_second"), "o-", color=colour, label=label)
        latency.plot(across, _column(curve[name], "p50_ms"), "o--", color=colour, alpha=0.6)
        latency.plot(across, _column(curve[name], "p99_ms"), "o-", color=colour)
        _ticks(across, rate, latency)
    rate.set(title="posts per second", ylim=(0, None))
    rate.legend(frameon=False)
    latency.set(title="latency, ms: p50 dashed, p99 solid", yscale="log")
    return figure


def _ticks(across: list[float], *axes: Axes) -> None:
    for one in axes:
        one.set(xscale="log", xlabel="connections", xticks=across)
        one.set_xticklabels([f"{value:,}" for value in across])
        one.minorticks_off()


def _outage(outage: Mapping[str, Any]):
    figure, (backlog, rate) = plt.subplots(2, 1, figsize=(9, 4), sharex=True, layout="constrained")
    samples, phases = outage["samples"], outage["phases"]
    seconds = _column(samples, "seconds")
    pairs = itertools.pairwise(samples)
    rates = [
        (two["delivered"] - one["delivered"]) / (two["seconds"] - one["seconds"])
        for one, two in pairs
    ]
    backlog.fill_between(seconds, _column(samples, "backlog"), color=_OURS, alpha=0.25)
    backlog.plot(seconds, _column(samples, "backlog"), color=_OURS)
    backlog.set(title="events waiting", ylim=(0, None))
    rate.plot(seconds[1:], rates, color=_OURS, label="delivered")
    rate.axhline(outage["posted_per_second"], color=_OTHER, linestyle="--", label="posted")
    rate.set(title="events per second", xlabel="seconds", ylim=(0, None))
    rate.legend(frameon=False)
    for one in (backlog, rate):
        one.axvspan(phases["good"], phases["good"] + phases["away"], color=_SHADE, zorder=0)
    backlog.annotate("Inngest is away", (phases["good"] + 0.2, 0.88), xycoords=_mixed(backlog))
    return figure


def _mixed(axes: Axes):
    return axes.get_xaxis_transform()


def _column(rows: list[Mapping[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows]


def _save(figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
