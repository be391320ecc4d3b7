"""Posts at a steady rate while one container after the other is stopped, killed, started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from tests.stack.command import run, until
from tests.stack.stack import Stack
from tests.stack.table import Table
from tests.stack.visitor import Posts, Visitor, visitor

PER_SECOND = 40
CALM_SECONDS = 1.0
AWAY_SECONDS = 2.0
DRAIN_SECONDS = 90
# Parts whose absence a post must not notice.
UNNOTICED = ("worker", "inngest", "s3", "prometheus", "grafana")


async def trouble_each_part(stack: Stack, table: Table) -> None:
    """Every part of the default and the metrics profile, by SIGTERM and by SIGKILL."""
    async with visitor(stack.url("service")) as user:
        accepted: list[str] = []
        name = await user.upload(stack.url("s3"), b"steady")
        for part in ("service", *UNNOTICED):
            for act in ("stop", "kill"):
                [container] = stack.names(part)
                async with user.posting(name, per_second=PER_SECOND) as posts:
                    await troubled(stack, act, container, part)
                accepted += posts.accepted
                _report(table, part, act, posts)
        await _account(stack, table, user, accepted)


async def troubled(stack: Stack, act: str, container: str, *parts: str) -> None:
    """End a container by `docker stop` or `kill`, and start it again, until `parts` are healthy."""
    await asyncio.sleep(CALM_SECONDS)
    await asyncio.to_thread(run, "docker", act, container)
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(run, "docker", "start", container)
    await asyncio.to_thread(stack.up, *parts)
    await asyncio.sleep(CALM_SECONDS)


def _report(table: Table, part: str, act: str, posts: Posts) -> None:
    figure = f"{len(posts.accepted)} accepted, {len(posts.refused)} refused"
    if posts.refused:
        figure += f" over {posts.refused_seconds:.1f} s ({posts.reasons()})"
    figure += f", slowest {posts.slowest_seconds:.2f} s"
    table.add(f"{part}: {act}", figure, good=part == "service" or not posts.refused)


async def _account(stack: Stack, table: Table, user: Visitor, accepted: list[str]) -> None:
    """Every accepted event is delivered, and the outbox holds nothing else of the trial's."""
    began = time.monotonic()
    await drained(stack)
    seconds = time.monotonic() - began
    lost = await undelivered(user, accepted)
    table.add(
        "accepted over all of it, lost",
        f"{len(accepted)}, {lost or 0}; drained {seconds:.1f} s after the end",
        good=bool(accepted) and not lost,
    )


async def undelivered(user: Visitor, event_ids: Sequence[str]) -> str:
    """The events that aren't delivered, each with its state; empty when all are."""
    states = zip(event_ids, await user.states(event_ids), strict=True)
    return ", ".join(f"{event_id}: {state}" for event_id, state in states if state != "delivered")


async def drained(stack: Stack, part: str = "service") -> None:
    """Return when nothing waits in a part's outbox."""
    await emptied(lambda: stack.stats(part))


async def emptied(read_stats: Callable[[], Mapping[str, int]]) -> None:
    """Return when nothing waits in the outbox that has these figures."""
    await asyncio.to_thread(
        until,
        read_stats,
        lambda stats: stats["pending"] + stats["delivering"] + stats.get("sent", 0) == 0,
        seconds=DRAIN_SECONDS,
        words=lambda stats: f"not drained after {DRAIN_SECONDS} s: {stats}",
    )
