"""The S3 bucket that holds the documents: one client for the life of the process.

boto reads the endpoint and the credentials (AWS_ENDPOINT_URL_S3, the credentials chain). Every
library error becomes one of the service's through `s3_errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import msgspec

from inngest_outbox.documents.boto import Boto, load_boto, s3_errors, status_of
from inngest_outbox.errors import ServiceError, StorageUnavailableError

UPLOAD_SECONDS = 900
_REOPEN_SECONDS = 5.0
_OPEN_SECONDS = 5.0
_CHUNK_BYTES = 256 * 1024
_CLIENT: dict[str, Any] = {
    "signature_version": "s3v4",
    "connect_timeout": 2,
    "read_timeout": 20,
    "max_pool_connections": 50,
    "retries": {"total_max_attempts": 1},  # callers wait 1 s, or retry by themselves
}
_FRESH_SECONDS = 10.0


class DocumentObject(msgspec.Struct, frozen=True, gc=False):
    """A document as S3 knows it. `version_id` is None in a bucket without versions."""

    size_bytes: int
    etag: str
    content_type: str
    version_id: str | None


class PresignedUpload(msgspec.Struct, frozen=True, gc=False):
    """A form to POST: every field, then the file as `file`, as multipart/form-data to `url`."""

    url: str
    fields: dict[str, str]


class Bucket:
    """The bucket `name` in `region`, to be used between `__aenter__` and `__aexit__`.

    Where `region` is empty boto reads one of its own variables.

    S3 has `ask_seconds` for an answer about the bucket or a document.

    Entering makes no call and does not fail. The client opens in the background at `open_soon` or
    at the first use, because finding credentials may need a request. A client that could not be
    opened is opened on a later use.
    """

    def __init__(self, name: str, region: str, *, ask_seconds: float = 1.0) -> None:
        self.name = name
        self.region = region
        self._ask_seconds = ask_seconds
        self._stack = AsyncExitStack()
        self._opening: asyncio.Task[Any] | None = None
        self._reopen_at = 0.0
        self._is_entered = False
        self._boto: Boto | None = None
        self._loading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._is_entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_entered = False
        opening, self._opening = self._opening, None
        if opening and not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        await self._stack.aclose()

    def open_soon(self) -> asyncio.Task[Any]:
        """Open the client in the background; for uses that can't wait for that."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open-bucket")
        return self._opening

    async def presign_upload(self, key: str, content_type: str, size_bytes: int) -> PresignedUpload:
        """Sign an upload of exactly this key, content type and size, good for UPLOAD_SECONDS.

        Makes no call to S3. Raises StorageUnavailableError without credentials.
        """
        async with self.client_for(_OPEN_SECONDS) as client:
            form = await client.generate_presigned_post(
                Bucket=self.name,
                Key=key,
                Fields={"Content-Type": content_type},
                Conditions=[
                    {"Content-Type": content_type},
                    ["content-length-range", size_bytes, size_bytes],
                ],
                ExpiresIn=UPLOAD_SECONDS,
            )
        # boto names the global endpoint, which redirects to other regions; browsers don't follow
        # a redirect of a form from another origin. The signature does not cover the host.
        regional = f"s3.{self.region}.amazonaws.com/"
        return PresignedUpload(
            form["url"].replace("s3.amazonaws.com/", regional, 1), form["fields"]
        )

    async def head(self, key: str) -> DocumentObject | None:
        """The document under `key`, None when S3 says that it is missing.

        Takes `ask_seconds` at most. Raises StorageUnavailableError when S3 can't be asked.
        """
        async with self.client_for(self._ask_seconds) as client:
            try:
                answer = await client.head_object(Bucket=self.name, Key=key)
            except Exception as error:
                if status_of(error) != 404:  # noqa: PLR2004
                    raise
                # A HEAD has no body, so a missing bucket looks like a missing document.
                await client.head_bucket(Bucket=self.name)
                return None
        return _document(answer)

    async def download(self, key: str, sink: Callable[[bytes], object]) -> DocumentObject:
        """Give every chunk of `key` to `sink` in order; return what S3 says about it.

        Holds a few chunks of 256 KiB at a time. Raises DocumentNotFoundError, and
        StorageUnavailableError, possibly after some chunks.
        """
        async with self.client_for(None) as client:
            answer = await client.get_object(Bucket=self.name, Key=key)
            body = answer["Body"]
            async with body:  # `as` would give aiohttp's response, which can't read in chunks
                while chunk := await body.read(_CHUNK_BYTES):
                    sink(chunk)
        return _document(answer)

    async def probe(self) -> str | None:
        """Ask for the bucket, `ask_seconds` at most: None when it answers, else a sentence."""
        try:
            async with self.client_for(self._ask_seconds) as client:
                await client.head_bucket(Bucket=self.name)
        except ServiceError as error:
            return str(error)
        return None

    @asynccontextmanager
    async def client_for(self, seconds: float | None) -> AsyncIterator[Any]:
        """The client, for so long; loading boto takes no part of that."""
        with s3_errors():
            await self._loaded()
            async with asyncio.timeout(seconds):
                yield await self._client()

    async def _loaded(self) -> Boto:
        async with self._loading:  # each load takes CPU and a thread from everything else
            if self._boto is None:
                self._boto = await asyncio.to_thread(load_boto)
        return self._boto

    async def _client(self) -> Any:
        """The client. After a cancellation the client still opens, for the next caller."""
        if not self._is_entered:
            raise StorageUnavailableError("The bucket is not open.")
        opening = self.open_soon()
        if opening.done() and isinstance(opening.result(), StorageUnavailableError):
            if asyncio.get_running_loop().time() < self._reopen_at:
                raise StorageUnavailableError(str(opening.result()))
            self._opening = None
            opening = self.open_soon()
        client = await asyncio.shield(opening)
        if isinstance(client, StorageUnavailableError):
            raise StorageUnavailableError(str(client))
        return client

    async def _open(self) -> Any:
        """A client, or the StorageUnavailableError that explains why there is none."""
        try:
            with s3_errors():
                boto = await self._loaded()
                if await boto.session.get_credentials() is None:
                    raise boto.errors.NoCredentialsError
                config = boto.config(**_CLIENT)
                opening = boto.session.client("s3", region_name=self.region or None, config=config)
                return await self._stack.enter_async_context(opening)
        except StorageUnavailableError as error:
            return self._failed(error)
        except ValueError:
            # botocore says so when the endpoint is not a URL.
            return self._failed(StorageUnavailableError("AWS_ENDPOINT_URL_S3 is not a URL."))

    def _failed(self, error: StorageUnavailableError) -> StorageUnavailableError:
        self._reopen_at = asyncio.get_running_loop().time() + _REOPEN_SECONDS
        return error


def _document(answer: Any) -> DocumentObject:
    return DocumentObject(
        size_bytes=answer["ContentLength"],
        etag=answer.get("ETag", "").strip('"'),
        content_type=answer.get("ContentType", "application/octet-stream"),
        version_id=answer.get("VersionId"),
    )


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
