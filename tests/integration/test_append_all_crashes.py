"""A call of several events in a process that is killed: all of them are stored, or none."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

from service.outbox.model import Filter
from tests.support import append_calls
from tests.support.storage import PATIENCE_SECONDS, storage_at

LIVES = 2


async def killed_after(store_url: str, answers: int) -> set[int]:
    """The calls that were answered by a process that is killed after so many."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", append_calls.__name__, store_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(3 * PATIENCE_SECONDS):
        answered = {int(await process.stdout.readline()) for _ in range(answers)}
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
    return answered | {int(line) for line in rest.splitlines()}


async def stored(store_url: str) -> Counter[int]:
    """How many events of each call are there."""
    async with storage_at(store_url).open() as outbox:
        rows = await outbox.inspector.rows(Filter(limit=1_000_000))
    return Counter(int(row.user_id.removeprefix("call ")) for row in rows)


async def test_a_killed_process_leaves_whole_calls_and_every_answered_one(
    store_url: str, tmp_path: Path
) -> None:
    for life in range(LIVES):
        answered = await killed_after(store_url, 3 + 11 * life)
        found = await stored(store_url)
        # The next life numbers its calls anew, with the same count of events in each.
        whole = {number: append_calls.size_of(number) for number in found}
        assert answered <= found.keys()
        assert {n: count % whole[n] for n, count in found.items()} == dict.fromkeys(found, 0)
