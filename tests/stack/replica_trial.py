"""Posts to replicas on PostgreSQL behind a balancer, while they are killed and replaced."""

from __future__ import annotations

import asyncio

from tests.stack.command import run
from tests.stack.stack import Stack
from tests.stack.table import Table
from tests.stack.trouble_trial import CALM_SECONDS, PER_SECOND, drained, troubled, undelivered
from tests.stack.visitor import visitor


async def trouble_replicas(stack: Stack, table: Table) -> None:
    """No post is refused while one replica is killed, nor while both are replaced one by one."""
    async with visitor(stack.url("balancer")) as user:
        [victim, _], [postgres] = stack.names("replica"), stack.names("postgres")
        async with user.posting("nothing", per_second=PER_SECOND) as killed:
            await troubled(stack, "kill", victim, "replica")
        async with user.posting("nothing", per_second=PER_SECOND) as replaced:
            await _replace_each(stack)
        async with user.posting("nothing", per_second=PER_SECOND) as database:
            await troubled(stack, "stop", postgres, "postgres", "replica")
        for tried, posts in (("one killed", killed), ("both replaced", replaced)):
            figure = f"{len(posts.accepted)} accepted, {len(posts.refused)} refused"
            figure += f" {posts.reasons()}, slowest {posts.slowest_seconds:.2f} s"
            table.add(f"replicas: {tried}", figure, good=not posts.refused)
        figure = f"{len(database.accepted)} accepted, {len(database.refused)} refused"
        figure += f" over {database.refused_seconds:.1f} s ({database.reasons()})"
        table.add("postgres: stopped and started", figure)
        accepted = killed.accepted + replaced.accepted + database.accepted
        await drained(stack, "replica")
        lost = await undelivered(user, accepted)
        table.add("replicas: accepted, lost", f"{len(accepted)}, {lost or 0}", good=not lost)


async def _replace_each(stack: Stack) -> None:
    for name in stack.names("replica"):
        await asyncio.to_thread(run, "docker", "stop", name)
        await asyncio.to_thread(run, "docker", "rm", name)
        # Makes the missing one, with what is configured now, and waits until it is ready.
        await asyncio.to_thread(stack.up, "--no-recreate", "replica")
    await asyncio.sleep(CALM_SECONDS)
