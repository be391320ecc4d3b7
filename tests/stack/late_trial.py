"""The stack comes up though Inngest starts a minute late, and takes posts meanwhile."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from tests.stack.stack import Stack
from tests.stack.table import Table
from tests.stack.trouble_trial import drained, undelivered
from tests.stack.visitor import visitor

LATE_SECONDS = 60
LIMIT_SECONDS = LATE_SECONDS + 45
POSTS = 25


async def start_inngest_late(stack: Stack, table: Table) -> None:
    """`docker compose up --wait` of the default profile, with posts before Inngest is there."""
    stack.profiles = ()
    began = time.monotonic()
    with stack.late("inngest", LATE_SECONDS):
        up = asyncio.create_task(asyncio.to_thread(stack.up))
        events = await _post_early(stack)
        accepted = time.monotonic() - began
        await up
    seconds = time.monotonic() - began
    table.add(
        "up, Inngest a minute late",
        f"{len(stack.containers())} containers healthy after {seconds:.0f} s",
        good=LATE_SECONDS < seconds < LIMIT_SECONDS,
    )
    await drained(stack)
    async with visitor(stack.url("service")) as user:
        lost = await undelivered(user, events)
    table.add(
        "posts before Inngest was there, lost",
        f"{len(events)} accepted within {accepted:.0f} s, {lost or 0}",
        good=accepted < LATE_SECONDS and not lost,
    )


async def _post_early(stack: Stack) -> list[str]:
    """Post as soon as the service answers; the events' ids."""
    async with asyncio.timeout(LATE_SECONDS):
        while True:
            try:
                async with visitor(stack.url("service")) as user:
                    return [await user.post(f"early-{number}") for number in range(POSTS)]
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
