"""The bucket's latest answer, for a health check that must not wait for S3."""

from __future__ import annotations

import asyncio

from service.documents.bucket import Bucket

_FRESH_SECONDS = 10.0


class BucketHealth:
    """The latest answer of a bucket's probe."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._said = "not asked yet"
        self._fresh_until = 0.0
        self._asking: asyncio.Task[None] | None = None

    def tell(self) -> str:
        """`ok`, the sentence of the latest probe, or `not asked yet`. Never waits.

        When the answer is older than 10 s, it is returned and the bucket is asked again in the
        background.
        """
        stale = asyncio.get_running_loop().time() >= self._fresh_until
        if stale and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(), name="probe-bucket")
        return self._said

    async def _ask(self) -> None:
        self._said = await self._bucket.probe() or "ok"
        self._fresh_until = asyncio.get_running_loop().time() + _FRESH_SECONDS
