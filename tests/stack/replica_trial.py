"""Posts to replicas on PostgreSQL behind a balancer, while they are killed and replaced."""

from __future__ import annotations

import asyncio

from tests.stack.command import run
from tests.stack.stack import Stack
from tests.stack.table import Table
from tests.stack.trouble_trial import AWAY_SECONDS, CALM_SECONDS, PER_SECOND, drained, undelivered
from tests.stack.visitor import Posts, Visitor, visitor


async def trouble_replicas(stack: Stack, table: Table) -> None:
    """No post is refused while one replica is killed, nor while both are replaced one by one."""
    async with visitor(stack.url("balancer")) as user:
        killed = await _kill_one(stack, user)
        replaced = await _replace_each(stack, user)
        database = await _restart(stack, user, "postgres")
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


async def _kill_one(stack: Stack, user: Visitor) -> Posts:
    victim = stack.names("replica")[0]
    async with user.posting("nothing", per_second=PER_SECOND) as posts:
        await asyncio.sleep(CALM_SECONDS)
        await asyncio.to_thread(run, "docker", "kill", victim)
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(run, "docker", "start", victim)
        await asyncio.to_thread(stack.up, "replica")
        await asyncio.sleep(CALM_SECONDS)
    return posts


async def _replace_each(stack: Stack, user: Visitor) -> Posts:
    async with user.posting("nothing", per_second=PER_SECOND) as posts:
        for name in stack.names("replica"):
            await asyncio.to_thread(run, "docker", "stop", name)
            await asyncio.to_thread(run, "docker", "rm", name)
            # Makes the missing one, with what is configured now, and waits until it is ready.
            await asyncio.to_thread(stack.up, "--no-recreate", "replica")
        await asyncio.sleep(CALM_SECONDS)
    return posts


async def _restart(stack: Stack, user: Visitor, part: str) -> Posts:
    [name] = stack.names(part)
    async with user.posting("nothing", per_second=PER_SECOND) as posts:
        await asyncio.sleep(CALM_SECONDS)
        await asyncio.to_thread(run, "docker", "stop", name)
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(run, "docker", "start", name)
        await asyncio.to_thread(stack.up, part, "replica")
        await asyncio.sleep(CALM_SECONDS)
    return posts
