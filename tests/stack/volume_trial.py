"""The container of the guide "Without a volume" is lost with its files, twice, under load."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.stack.command import StackError, run, until
from tests.stack.pinned_images import ROOT
from tests.stack.stack import PROJECT, Stack
from tests.stack.table import Table
from tests.stack.trouble_trial import AWAY_SECONDS, PER_SECOND, emptied
from tests.stack.visitor import Visitor

GUIDE = ROOT / "docs/guide/without-a-volume.md"
NAME = f"{PROJECT}-volumeless"
EVENT, EVENT_KEY = "stack/volumeless", "volumeless-event-key"
LIMIT_SECONDS = 60


class _Program(Visitor):
    """A program with an event key. A post gives the event's id and the one that Inngest gives."""

    async def post(self, name: str, key: str | None = None) -> str:
        event = {"name": name, "id": key, "data": {}}
        async with self.http.post(f"/e/{EVENT_KEY}", json=[event]) as answer:
            if answer.status != 200:
                raise StackError(str(answer.status))
            return f"{key} {(await answer.json(content_type=None))['ids'][0]}"


async def lose_each_volume(stack: Stack, table: Table) -> None:
    """The first loss while Inngest is away and all waits, the second while events leave."""
    restored = []
    await asyncio.to_thread(stack.compose, "stop", "inngest")
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    try:
        await asyncio.to_thread(_start, stack)
        async with (
            aiohttp.ClientSession(stack.url("volumeless"), connector=connector) as http,
            _Program(http).posting(EVENT, per_second=PER_SECOND) as posts,
        ):
            for _ in range(2):
                await asyncio.sleep(AWAY_SECONDS)
                await asyncio.to_thread(_lose)
                await asyncio.to_thread(_start, stack)
                restored.append((await asyncio.to_thread(_stats))["journal"]["restored"])
                await asyncio.to_thread(stack.up, "inngest")
        await emptied(_stats)
    finally:
        run("docker", "rm", "--force", "--volumes", NAME, check=False)
    held = await _held(stack)
    wrong = [one for one in posts.accepted if held[one.split()[0]] != [one]]
    figure = f"{restored} came back; {len(posts.accepted)} accepted, {len(posts.refused)} refused"
    figure += f", not once at Inngest: {wrong or 0}"
    table.add("container and volume lost, twice", figure, good=restored[0] > 0 and not wrong)


def _command(stack: Stack) -> list[str]:
    """The guide's `docker run` with the stack's bucket and Inngest, and a key for posts.

    With a signing key Inngest is asked before an event is sent again.
    """
    parts = stack.parts["service"]["environment"]
    journal = f"s3://{parts['AWS_S3_BUCKET']}/volumeless"
    values = {**parts, "OUTBOX_JOURNAL": journal, "INNGEST_EVENT_KEY": "any"}
    added = {
        "AWS_ENDPOINT_URL_S3": parts["AWS_ENDPOINT_URL_S3"],
        "INNGEST_BASE_URL": parts["INNGEST_DEV"],
        "INNGEST_SIGNING_KEY": "signkey-test-00ff",
        "OUTBOX_EVENT_KEYS": f"program:{EVENT_KEY}",
    }
    [block] = re.findall(r"```sh\ndocker run (.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    port = f":{stack.ports['VOLUMELESS']}:"
    *printed, image = shlex.split(block.replace("\\\n", " ").replace(":3000:", port))
    names = [word.partition("=")[0] for word in printed]
    options = [
        f"{name}={values[name]}" if name in values else word
        for name, word in zip(names, printed, strict=True)
    ]
    options += [f"--env={name}={value}" for name, value in added.items()]
    options += ["--detach", f"--name={NAME}", f"--network={PROJECT}_default"]
    return ["docker", "run", *options, f"{image}:local"]


def _start(stack: Stack) -> None:
    run(*_command(stack))
    ready = stack.parts["service"]["healthcheck"]["test"][1:]
    _wait(lambda: run("docker", "exec", NAME, *ready, check=False).returncode == 0)


def _lose() -> None:
    """Kill the container, and return when neither it nor its volume is there."""
    asked = ("docker", "inspect", "--format={{range .Mounts}}{{.Name}}{{end}}", NAME)
    volume = run(*asked).stdout.strip()
    run("docker", "kill", NAME)
    _wait(lambda: run("docker", "inspect", NAME, volume, check=False).stdout.strip() == "[]")


def _wait(fact: Callable[[], bool]) -> None:
    def words(_: object) -> str:
        said = run("docker", "logs", "--tail=9", NAME, check=False)
        return f"{NAME} is not ready or not gone: {said.stdout}{said.stderr}"

    until(fact, seconds=LIMIT_SECONDS, words=words)


def _stats() -> dict[str, Any]:
    shown = run("docker", "exec", NAME, "outbox", "stats", "--json").stdout
    found: dict[str, Any] = json.loads(shown)
    return found


async def _held(stack: Stack) -> dict[str, list[str]]:
    """The trial's events that Inngest holds: by id, each time with Inngest's own."""
    held: dict[str, list[str]] = defaultdict(list)
    asked = {"name": EVENT, "limit": "50"}
    async with aiohttp.ClientSession(stack.url("inngest")) as http:
        while True:
            async with http.get("/v1/events", params=asked) as answer:
                events = (await answer.json(content_type=None))["data"] or []
            for one in events:
                held[one["id"]].append(f"{one['id']} {one['internal_id']}")
            if not events:
                return held
            asked["cursor"] = events[-1]["internal_id"]
