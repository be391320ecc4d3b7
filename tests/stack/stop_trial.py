"""The whole stack stops in time, and what waits in the outbox outlives `down` and `up`."""

from __future__ import annotations

import asyncio
import time

from tests.stack.command import run
from tests.stack.stack import Stack
from tests.stack.table import Table
from tests.stack.trouble_trial import drained
from tests.stack.visitor import visitor

WAITING = 25
GRACE_SECONDS = 40


async def stop_and_start(stack: Stack, table: Table) -> None:
    """`docker compose stop` within the grace period, then `down` and `up` around waiting events."""
    async with visitor(stack.url("service")) as user:
        await asyncio.to_thread(stack.compose, "stop", "inngest")
        events = [await user.post(f"waiting-{number}") for number in range(WAITING)]
        seconds, codes = await asyncio.to_thread(_stop, stack)
        table.add(
            "compose stop",
            f"{seconds:.1f} s of {GRACE_SECONDS} s; exit codes {codes}",
            good=seconds < GRACE_SECONDS and set(codes.values()) == {0},
        )
        await asyncio.to_thread(stack.compose, "down")
        await asyncio.to_thread(stack.up)
        await drained(stack)
        kept = (await user.states(events)).count("delivered")
    table.add("down and up: waiting, delivered then", f"{WAITING}, {kept}", good=kept == WAITING)


def _stop(stack: Stack) -> tuple[float, dict[str, int]]:
    names = [name for part in ("service", "worker") for name in stack.names(part)]
    began = time.monotonic()
    stack.compose("stop")
    seconds = time.monotonic() - began
    codes = {}
    for name in names:
        found = run("docker", "inspect", "--format", "{{.State.ExitCode}}", name).stdout
        codes[name.removeprefix("outbox-stack-")] = int(found)
    return seconds, codes
