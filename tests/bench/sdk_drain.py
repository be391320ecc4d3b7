"""What a drain is measured beside: the Inngest SDK sends events that it holds in memory.

`python -m tests.bench.sdk_drain SINK COUNT BATCH` prints `ready`, and begins at a line on its
standard input. One client, one batch after the other: each is sent when the one before is answered.
"""

from __future__ import annotations

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


async def _main(sink: str, count: int, size: int) -> None:
    client = inngest.Inngest(
        app_id="bench", event_key="key", event_api_base_url=sink, is_production=True
    )
    now = int(time.time() * 1000)
    events = [_event(number, now) for number in range(1, count + 1)]
    print("ready", flush=True)
    sys.stdin.readline()
    for first in range(0, count, size):
        await client.send(events[first : first + size])


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
