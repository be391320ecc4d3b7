"""What a health check tells about the bucket, without waiting for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from service.documents.bucket import BucketHealth
from tests.support.storage import eventually


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


async def test_trouble_is_told_and_forgotten_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.documents.bucket._FRESH_SECONDS", 0.0)
    bucket = Asked()
    bucket.may_answer.set()
    health = BucketHealth(cast("Any", bucket))
    for bucket.says in ("The bucket does not exist.", None):
        await eventually(health.tell, lambda said: said == (bucket.says or "ok"))
