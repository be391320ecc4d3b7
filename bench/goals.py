"""The goals, and what a run found beside them.

All but times, syncs and memory are ratios of figures that were taken in turns in one run, so that
another machine, or a busy one, moves both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """`key` names the figure; it is met when the figure is at least or at most `limit`."""

    key: str
    what: str
    limit: float
    unit: str
    digits: int
    at_most: bool

    def met_by(self, figure: float) -> bool:
        return figure <= self.limit if self.at_most else figure >= self.limit

    def shown(self, figure: float) -> str:
        return f"{figure:.{self.digits}f}{self.unit}"

    @property
    def limit_shown(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}{self.unit}"


def at_least(key: str, limit: float, what: str, unit: str = "", digits: int = 2) -> Goal:
    return Goal(key, what, limit, unit, digits, at_most=False)


def at_most(key: str, limit: float, what: str, unit: str = "", digits: int = 2) -> Goal:
    return Goal(key, what, limit, unit, digits, at_most=True)


GOALS = (
    at_least(
        "posts_to_parse", 0.45, "durable signed-in posts/s, ratio to a handler that only parses"
    ),
    at_least(
        "posts_to_sdk", 20, "the same, ratio to a handler that awaits the SDK's send", digits=1
    ),
    at_least("arrays_per_second", 50_000, "durable events/s in arrays of 100", digits=0),
    at_least("arrays_to_single", 4, "the same, ratio to single posts", digits=1),
    at_most(
        "cpu_array_event",
        25,
        "processor time per event of an array, accepted to delivered",
        " µs",
        1,
    ),
    at_most("cpu_array_in", 15, "the same, accepted while Inngest is away", " µs", 1),
    at_most("cpu_array_out", 10, "the same, delivered afterwards", " µs", 1),
    at_most("p99_beside_large", 100, "p99 of single posts beside requests of 3 MiB", " ms", 0),
    at_least("posts_encrypted", 0.9, "posts/s with encrypted data, ratio to those without"),
    at_most("p99_away", 1.2, "p99 of posts while Inngest is away, ratio to good times"),
    at_most("p99_hanging", 1.2, "p99 of posts while Inngest hangs, ratio to good times"),
    at_least("drain_to_sdk", 2, "events/s drained from 100,000, ratio to the SDK's batches of 500"),
    at_least("posts_draining", 0.8, "posts/s while a backlog drains, ratio to none"),
    at_least("posts_draining_half", 0.95, "the same at half of the full rate"),
    at_most("posts_draining_half_p99", 2, "p99 of posts at half of the full rate, same ratio"),
    at_least("fronts_to_one", 1.5, "posts/s with 2 front processes, ratio to one process"),
    at_least("fronts_to_one_many", 1.5, "the same at 256 connections"),
    at_most(
        "fronts_cpu_to_one", 1.2, "processor time per event with 2 front processes, same ratio"
    ),
    at_most("fronts_syncs", 1 / 16, "syncs per accepted post with 2 front processes", digits=4),
    at_least("fronts_draining", 0.8, "posts/s with them while a backlog drains, ratio to none"),
    at_least("fronts_draining_half", 0.95, "the same at half of the full rate"),
    at_most("fronts_draining_half_p99", 2, "p99 of posts at half of the full rate, same ratio"),
    at_most("cpu_to_parse", 3, "processor time per event, accepted to delivered, ratio to a parse"),
    at_most("idle_to_direct", 2, "idle: post to arrival, median, ratio to a direct send"),
    at_most("syncs_per_post", 1 / 16, "syncs per accepted post at 64 connections", digits=4),
    at_least("posts_million", 0.9, "posts/s with 1,000,000 rows waiting, ratio to an empty outbox"),
    at_least("drain_million", 0.9, "drained events/s with 1,000,000 rows, ratio to 100,000"),
    at_most("memory_million", 150, "memory with 1,000,000 rows waiting, above idle", " MiB", 0),
    at_most("memory_flight", 150, "memory with 10,000 requests in flight, above idle", " MiB", 0),
    at_most(
        "memory_flight_fronts", 150, "the same with 2 front processes, all together", " MiB", 0
    ),
    at_most(
        "memory_waiters", 150, "memory with 10,000 who wait for an event, above idle", " MiB", 0
    ),
    at_most("crowd_errors", 0, "1,000 connections at once: errors", digits=0),
    at_most("crowd_longest", 5, "1,000 connections at once: the longest answer", " s"),
    at_least("drain_to_storing", 0.9, "confirmed events/s, ratio to Inngest's storing rate"),
    at_least(
        "drain_to_storing_slow_answers", 0.9, "the same with answers to questions after 0.5 s"
    ),
    at_least("posts_confirmed", 0.9, "posts/s with confirmation on, ratio to off"),
    at_most(
        "cpu_confirmed", 1.25, "processor time per event, post to confirmed, ratio to unconfirmed"
    ),
    at_least(
        "drain_failing_10", 0.45, "drained events/s, 10 % of the requests fail, ratio to none"
    ),
    at_least("drain_failing_30", 0.35, "the same, 30 % fail"),
    at_least("drain_failing_50", 0.25, "the same, 50 % fail"),
    at_least("drain_traced", 0.8, "drained events/s, each event with its own trace, ratio to none"),
    at_most("wait_among_bad", 5, "good events' wait, median, 80 % of all events bad", " s"),
    at_most("start", 1, "start to first answer", " s"),
    at_most("stats_million", 0.5, "`outbox stats` with 1,000,000 rows", " s"),
)


def table(figures: dict[str, float]) -> str:
    """The goals as a Markdown table; a goal without a figure was not measured."""
    lines = ["| what | goal | figure | verdict |", "|---|---|---|---|"]
    for goal in GOALS:
        figure = figures.get(goal.key)
        shown = "-" if figure is None else goal.shown(figure)
        lines.append(f"| {goal.what} | {goal.limit_shown} | {shown} | {verdict(goal, figure)} |")
    return "\n".join(lines)


def put_into(readme: Path, figures: dict[str, float]) -> None:
    """Put the table between the two marks of `readme`, where it has them."""
    text = readme.read_text()
    before, begin, rest = text.partition("<!-- bench: begin -->")
    _, end, after = rest.partition("<!-- bench: end -->")
    if begin and end:
        readme.write_text(f"{before}{begin}\n{table(figures)}\n{end}{after}")


def verdict(goal: Goal, figure: float | None) -> str:
    if figure is None:
        return "not measured"
    return "met" if goal.met_by(figure) else "**missed**"
