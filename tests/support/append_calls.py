"""A process that makes calls of several events until it is killed.

Its argument is the outbox's URL. The events of a call are those of the user `call <number>`; the
number of a call that was answered is a line of standard output.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from service.outbox.keys import IdempotencyKey
from tests.support.storage import event, storage_at

CALLERS = 4
LIMITS = {"max_pending": 1_000_000, "max_pending_per_user": 1_000_000}


def size_of(number: int) -> int:
    """How many events a call has."""
    return 2 + number % 40


async def main(url: str) -> None:
    numbers = itertools.count(1)
    async with storage_at(url).open(**LIMITS) as outbox:

        async def call() -> None:
            for number in numbers:
                events = [event(f"call {number}") for _ in range(size_of(number))]
                keys = [IdempotencyKey(str(at), b"1" * 32) for at in range(len(events))]
                await outbox.intake.append_all(events, keys if number % 2 else [None] * len(keys))
                print(number, flush=True)

        await asyncio.gather(*(call() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
