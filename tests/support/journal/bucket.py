"""A bucket in memory, in virtual time: puts are lost, late, repeated and refused."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence

from botocore.exceptions import ClientError

from inngest_outbox.errors import StorageUnavailableError
from inngest_outbox.journal.objects import Listed
from inngest_outbox.outbox.clock import wall_now_ms

LATE_SECONDS = 20.0


class MemoryBucket:
    """The objects of every life of a history. `well_since` is when the last trouble ended."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.trouble: str | None = None
        self.well_since = 0.0
        self.requests = 0
        self.lates: set[asyncio.Task[None]] = set()

    def begin(self, trouble: str | None) -> None:
        """`lost`, `late`, `unanswered`, `refused`, `slow` or None from now on."""
        self.trouble = trouble
        self.well_since = math.inf if trouble else asyncio.get_running_loop().time()

    def put(self, name: str, data: bytes, *, is_new: bool) -> bool:
        if is_new and name in self.objects:
            return False
        self.objects[name] = (data, wall_now_ms())
        return True

    def has(self, event_id: str, *, marks: bool = False) -> bool:
        """True if an event is in a group, or with `marks` in a mark."""
        found = [name for name, (data, _) in self.objects.items() if event_id.encode() in data]
        return any(("/mark-" in name) is marks for name in found)


class BucketLine:
    """The bucket as one life of a service reaches it: JournalBucket in memory."""

    address = "s3://memory/journal"

    def __init__(self, bucket: MemoryBucket) -> None:
        self._bucket = bucket
        self.is_cut = False

    async def put(self, name: str, data: bytes, *, seconds: float, is_new: bool = False) -> bool:
        bucket = self._bucket
        await self._request()
        match bucket.trouble if bucket.chance.random() < 0.8 else None:
            case "lost":
                await asyncio.sleep(seconds)
                raise StorageUnavailableError("S3 does not answer in time.")
            case "late":
                late = asyncio.create_task(_put_late(bucket, name, data, is_new=is_new))
                bucket.lates.add(late)
                late.add_done_callback(bucket.lates.discard)
                await asyncio.sleep(seconds)
                raise StorageUnavailableError("S3 does not answer in time.")
            case "unanswered":
                bucket.put(name, data, is_new=is_new)
                await asyncio.sleep(seconds)
                raise StorageUnavailableError("S3 does not answer in time.")
            case "refused":
                raise StorageUnavailableError("S3 asks for fewer requests.") from ClientError(
                    {"ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject"
                )
            case "slow":
                await asyncio.sleep(bucket.chance.uniform(0, seconds * 0.9))
        done = bucket.put(name, data, is_new=is_new)
        await self._answered()
        return done

    async def get(self, name: str) -> bytes | None:
        await self._request()
        return self._bucket.objects.get(name, (None, 0))[0]

    async def exists(self, name: str) -> bool:
        await self._request()
        return name in self._bucket.objects

    async def listed(self) -> AsyncIterator[Listed]:
        await self._request()
        for name, (data, at) in sorted(self._bucket.objects.items()):
            yield Listed(name, len(data), at)

    async def delete(self, names: Sequence[str]) -> None:
        await self._request()
        for name in names:
            self._bucket.objects.pop(name, None)
        await self._answered()

    async def _request(self) -> None:
        """On its way to the bucket; it never gets there where the process was killed."""
        self._bucket.requests += 1
        await asyncio.sleep(self._bucket.chance.uniform(0.0, 0.03))
        await self._answered()
        if self._bucket.trouble in ("lost", "late") and self._bucket.chance.random() < 0.3:
            raise StorageUnavailableError("S3 can't be reached.")

    async def _answered(self) -> None:
        if self.is_cut:
            raise StorageUnavailableError("The process was killed.")


async def _put_late(bucket: MemoryBucket, name: str, data: bytes, *, is_new: bool) -> None:
    await asyncio.sleep(bucket.chance.uniform(0, LATE_SECONDS))
    bucket.put(name, data, is_new=is_new)
