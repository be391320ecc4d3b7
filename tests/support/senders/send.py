"""Sends events with Inngest's own client, several at a time, and prints what became of each."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import inngest


async def send_some(client: inngest.Inngest, numbers: Iterator[int]) -> None:
    for n in numbers:
        line: dict[str, object] = {"n": n, "began": time.time()}
        try:
            line["ids"] = await client.send(inngest.Event(name="sdk/python", data={"n": n}))
        except Exception as error:  # noqa: BLE001
            line["error"] = repr(error)
        print(json.dumps({**line, "ended": time.time()}), flush=True)


async def main(count: int, at_once: int) -> None:
    client, numbers = inngest.Inngest(app_id="sender"), iter(range(count))
    await asyncio.gather(*(send_some(client, numbers) for _ in range(at_once)))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
