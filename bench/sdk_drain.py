"""A drain to compare with: the Inngest SDK sends what an application holds in memory.

`python -m bench.sdk_drain SINK COUNT BATCH` prints `ready`, and begins at a line on its
standard input. One client, one batch after the other: each is sent when the one before is answered.
Its events are made as they are sent; with `--made`, all were made before.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import inngest

NAME = "documents/aws.index"


class _Event(inngest.Event):
    """With the fields that the service sends, so that both send the same bytes."""

    v: str | None = None
    user: dict[str, str] | None = None


def _event(number: int, now_ms: int) -> _Event:
    data = {"documentName": "example", "bucket": "documents", "region": "eu-west-1"}
    return _Event(
        name=NAME,
        id=f"01900000-0000-7000-8000-{number:012x}",
        ts=now_ms,
        v="1",
        user={"id": f"u-{number % 1000}", "email": "ada@example.com", "name": "Ada"},
        data={**data, "appSettings": {}},
    )


async def _main(options: argparse.Namespace) -> None:
    client = inngest.Inngest(
        app_id="bench", event_key="key", event_api_base_url=options.sink, is_production=True
    )
    now = int(time.time() * 1000)
    numbers = range(1, options.count + 1)
    made = [_event(number, now) for number in numbers] if options.made else None
    print("ready", flush=True)
    sys.stdin.readline()
    for first in range(0, options.count, options.batch):
        here = slice(first, first + options.batch)
        events = made[here] if made else [_event(number, now) for number in numbers[here]]
        await client.send(events)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("sink")
    parser.add_argument("count", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--made", action="store_true")
    asyncio.run(_main(parser.parse_args()))
