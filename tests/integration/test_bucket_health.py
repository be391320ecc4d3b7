"""What a health check tells about the bucket, without waiting for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from service.documents.bucket import BucketHealth
from tests.support.storage import eventually
from tests.support.virtual_time import in_virtual_time


class Asked:
    """A bucket whose answers wait until they may come."""

    def __init__(self) -> None:
        self.says: str | None = None
        self.times = 0
        self.may_answer = asyncio.Event()

    async def probe(self) -> str | None:
        self.times += 1
        await self.may_answer.wait()
        return self.says


async def test_it_asks_in_the_background_and_keeps_the_answer_for_a_while() -> None:
    bucket = Asked()
    health = BucketHealth(cast("Any", bucket))
    for _ in range(3):
        assert health.tell() == "not asked yet"
        await asyncio.sleep(0)
    bucket.may_answer.set()
    await eventually(health.tell, lambda said: said == "ok")
    await asyncio.sleep(0)
    assert bucket.times == 1


@in_virtual_time
async def test_an_answer_is_told_for_ten_seconds_and_then_asked_for_again() -> None:
    bucket = Asked()
    bucket.may_answer.set()
    health = BucketHealth(cast("Any", bucket))
    told = []
    for bucket.says, seconds in (("No.", 0.1), (None, 9.8), (None, 0.2), (None, 0.1), (None, 0.0)):
        told.append((health.tell(), bucket.times))
        await asyncio.sleep(seconds)
    assert told == [("not asked yet", 0), ("No.", 1), ("No.", 1), ("No.", 1), ("ok", 2)]
