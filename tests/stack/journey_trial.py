"""One document, from the upload to the function's result."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time

import aiohttp

from tests.stack.command import StackError
from tests.stack.stack import Stack
from tests.stack.table import Table
from tests.stack.visitor import Visitor, visitor

SIZE = 3_000_000
LIMIT_SECONDS = 60


async def follow_a_document(stack: Stack, table: Table) -> None:
    """Upload, post, and wait for the run that the worker did."""
    content = os.urandom(SIZE)
    async with visitor(stack.url("service")) as user:
        await _refused(stack, table, user)
        name = await user.upload(stack.url("s3"), content)
        began = time.monotonic()
        event_id = await user.post(name)
        answered = time.monotonic() - began
        output = await _result(stack, event_id)
        seconds = time.monotonic() - began
    table.add("document: post answered", f"{answered * 1000:.0f} ms")
    right = output.get("size") == SIZE
    right = right and output.get("sha256") == hashlib.sha256(content).hexdigest()
    table.add(
        "document: post to result",
        f"{seconds:.1f} s; size and sha256 {'right' if right else f'WRONG: {output}'}",
        good=right,
    )


async def _refused(stack: Stack, table: Table, user: Visitor) -> None:
    """S3 holds a form to its signed policy: one byte more than was signed is refused."""
    try:
        await user.upload(stack.url("s3"), b"four", signed_bytes=3)
        figure = "taken"
    except StackError as error:
        figure = str(error)
    good = figure.startswith("the upload got 4")
    table.add("document: four bytes with a form for three", figure.splitlines()[0], good=good)


async def _result(stack: Stack, event_id: str) -> dict[str, object]:
    """The output of the event's run, from Inngest's REST API."""
    async with aiohttp.ClientSession(stack.url("inngest")) as http:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                for run in await _runs(http, event_id):
                    # The output comes a moment after the status.
                    if run["status"] in ("Completed", "Failed") and "output" in run:
                        found = run["output"]
                        return found if isinstance(found, dict) else {"failed": found}
                await asyncio.sleep(0.1)


async def _runs(http: aiohttp.ClientSession, event_id: str) -> list[dict[str, object]]:
    async with http.get("/v1/events", params={"name": "documents/aws.index"}) as answer:
        events = (await answer.json(content_type=None))["data"] or []
    for event in events:
        if event["id"] == event_id:
            async with http.get(f"/v1/events/{event['internal_id']}/runs") as answer:
                found: list[dict[str, object]] = (await answer.json(content_type=None))[
                    "data"
                ] or []
                return found
    return []
