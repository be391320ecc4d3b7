"""Delivery beside a transaction that is open while millions of events go through (make soak).

`DEAD_ROWS` is how many events went through before, `MINUTES` how long delivery is watched then,
`PER_SECOND` how many posts each outbox gets in a second of it. A second outbox on the same server
has no such transaction. Each minute both get paced posts at once; in each `BURST_EVERY`th minute
they take turns with a burst, so that what else the machine does counts for both.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time

import psycopg
import pytest

from service.outbox.schema import migrate
from tests.support.postgres_rows import analyze, catch_up, pass_rows_through
from tests.support.postgres_watched import Watched, watched, watched_postgres

DEAD_ROWS = int(os.environ.get("DEAD_ROWS", "2_000_000"))
MINUTES = int(os.environ.get("MINUTES", "2"))
PER_SECOND = float(os.environ.get("PER_SECOND", "50"))
BURST_EVERY = int(os.environ.get("BURST_EVERY", "1"))
PACED_SECONDS, BURST_SECONDS = 40.0, 8.0
LEAST_SHARE = 0.5
MOST_SECONDS = 1.0
LEAST_CALLS = 10
MORE_PAGES = 100


@pytest.mark.soak
@pytest.mark.timeout(1200 + DEAD_ROWS // 2000 + MINUTES * 150)
async def test_delivery_keeps_its_rate_beside_an_open_transaction() -> None:
    with (
        watched_postgres() as server,
        server.database("alone") as alone,
        server.database("beside") as url,
    ):
        migrate(alone)
        migrate(url)
        with psycopg.connect(url) as idle:
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT count(*) FROM outbox.events")
            await asyncio.to_thread(pass_rows_through, url, DEAD_ROWS)
            await asyncio.to_thread(analyze, url)
            await catch_up(url)
            async with watched(alone, server) as one, watched(url, server) as other:
                await watch(one, other)
    judge(one, other)


async def watch(alone: Watched, dead: Watched) -> None:
    """Fill both with a minute's figures, again and again; the first minute warms up."""
    for minute in range(1 + MINUTES):
        bursts = minute % BURST_EVERY == 0
        paced = PACED_SECONDS if bursts else PACED_SECONDS + 2 * BURST_SECONDS
        async with asyncio.TaskGroup() as both:
            both.create_task(alone.pace(paced, PER_SECOND))
            both.create_task(dead.pace(paced, PER_SECOND))
        if bursts:
            await alone.burst(BURST_SECONDS)
            await dead.burst(BURST_SECONDS)
        load = os.getloadavg()[0]
        print(
            time.strftime("%H:%M:%S"), f"load {load:.1f}", told(alone), "|", told(dead), flush=True
        )


def told(one: Watched) -> str:
    statements = one.statements[-1].values()
    return (
        f"{one.rates[-1]:,.0f}/s p99 {one.p99_seconds[-1] * 1e3:,.0f} ms "
        f"{one.processor_us[-1]:,.0f} us stats {one.stats_seconds[-1] * 1e3:,.0f} ms "
        f"{sum(each.calls * each.pages for each in statements):,.0f} pages"
    )


def judge(alone: Watched, dead: Watched) -> None:
    kept = [one / other for one, other in zip(dead.rates, alone.rates, strict=True)][1:]
    waits, plain = dead.p99_seconds[1:], alone.p99_seconds[1:]
    print(
        f"beside {DEAD_ROWS:,} events: {statistics.median(kept):.2f} of the rate, at worst "
        f"{min(kept):.2f}; p99 {statistics.median(waits):.3f} s, at worst {max(waits):.3f} s "
        f"(alone {statistics.median(plain):.3f} s, {max(plain):.3f} s)"
    )
    grown = growth(dead)
    for text, first, last in grown[:12]:
        print(f"pages {first:7.1f} -> {last:7.1f}  {' '.join(text.split())[:110]}")
    assert statistics.median(kept) >= LEAST_SHARE
    assert all(
        wait <= max(MOST_SECONDS, 2 * other) for wait, other in zip(waits, plain, strict=True)
    )
    assert not [text for text, first, last in grown if last > first + MORE_PAGES]


def growth(one: Watched) -> list[tuple[str, float, float]]:
    """Each statement's pages a call, in the first and in the last third of the minutes."""
    minutes = one.statements[1:]
    third = max(1, len(minutes) // 3)
    found = []
    for key, statement in minutes[-1].items():
        first, last = (
            [each[key].pages for each in some if key in each and each[key].calls >= LEAST_CALLS]
            for some in (minutes[:third], minutes[-third:])
        )
        if first and last:
            found.append((statement.text, statistics.median(first), statistics.median(last)))
    return sorted(found, key=lambda each: each[1] - each[2])
