"""The journal's part of a bucket: the objects below one prefix.

S3 replaces an object as a whole, so a put leaves the old content or the new one. An answer that did
not come says nothing: the put may land later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from inngest_outbox.documents.boto import status_of
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.errors import StorageUnavailableError
from inngest_outbox.journal.objects import Listed

MAX_DELETED = 1000  # of one request
_ASK_SECONDS = 10.0
_TAKEN, _MISSING = 412, 404
_REFUSED = range(400, 500)
_UNDECIDED = (408, 409, 412, 429)


class JournalBucket:
    """The objects of `bucket` below `prefix`; names are without it.

    Every method raises StorageUnavailableError. It ends with the bucket.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def address(self) -> str:
        """Its address: s3://bucket/prefix."""
        return f"s3://{self._bucket.name}/{self._prefix}".rstrip("/")

    async def put(self, name: str, data: bytes, *, seconds: float, is_new: bool = False) -> bool:
        """Put an object; with `is_new` False where there is one of this name."""
        condition = {"IfNoneMatch": "*"} if is_new else {}
        async with self._bucket.client_for(seconds) as client:
            try:
                await client.put_object(
                    Bucket=self._bucket.name,
                    Key=self._prefix + name,
                    Body=data,
                    ContentType="application/msgpack",
                    **condition,
                )
            except Exception as error:
                if status_of(error) != _TAKEN:
                    raise
                return False
        return True

    async def get(self, name: str) -> bytes | None:
        """The content of an object, None without it."""
        async with self._bucket.client_for(_ASK_SECONDS) as client:
            try:
                answer = await client.get_object(Bucket=self._bucket.name, Key=self._prefix + name)
            except client.exceptions.NoSuchKey:
                return None
            body: bytes = await answer["Body"].read()
            return body

    async def exists(self, name: str) -> bool:
        """True if there is such an object."""
        async with self._bucket.client_for(_ASK_SECONDS) as client:
            try:
                await client.head_object(Bucket=self._bucket.name, Key=self._prefix + name)
            except Exception as error:
                if status_of(error) != _MISSING:
                    raise
                return False
        return True

    async def listed(self) -> AsyncIterator[Listed]:
        """All objects, a request for each thousand."""
        given = {"Bucket": self._bucket.name, "Prefix": self._prefix}
        while True:
            async with self._bucket.client_for(_ASK_SECONDS) as client:
                answer = await client.list_objects_v2(**given)
            for one in answer.get("Contents", ()):
                modified_ms = int(one["LastModified"].timestamp() * 1000)
                yield Listed(one["Key"].removeprefix(self._prefix), one["Size"], modified_ms)
            if not answer.get("IsTruncated"):
                return
            given["ContinuationToken"] = answer["NextContinuationToken"]

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects, at most MAX_DELETED; those that are missing are gone already."""
        keys = [{"Key": self._prefix + name} for name in names]
        async with self._bucket.client_for(_ASK_SECONDS) as client:
            answer = await client.delete_objects(
                Bucket=self._bucket.name, Delete={"Objects": keys, "Quiet": True}
            )
        if faults := answer.get("Errors"):
            raise StorageUnavailableError(f"S3 keeps an object: {faults[0].get('Code')}.")


def is_refusal(error: StorageUnavailableError) -> bool:
    """True where S3 answered that it does not take the request: nothing was stored."""
    status = status_of(error.__cause__) if isinstance(error.__cause__, Exception) else 0
    return status in _REFUSED and status not in _UNDECIDED
