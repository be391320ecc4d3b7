"""The S3 bucket that holds the documents: one client for the life of the process.

Endpoint and credentials are what boto reads (AWS_ENDPOINT_URL_S3, the credentials chain). Every
library error leaves here as ours through `s3_errors`. A change must keep "S3 says that it is not
there" (None, DocumentNotFoundError) apart from "S3 can't be asked" (StorageUnavailableError).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import aioboto3
import aiohttp
import msgspec
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from service.errors import DocumentNotFoundError, ServiceError, StorageUnavailableError

UPLOAD_SECONDS = 900
ASK_SECONDS = 1.0
_REOPEN_SECONDS = 5.0
_OPEN_SECONDS = 5.0
_CHUNK_BYTES = 256 * 1024

_CREDENTIALS = "S3 refuses the credentials, or they don't allow this."
_REGION = "The bucket is in another region than AWS_S3_REGION."
_BUCKET = "The bucket named by AWS_S3_BUCKET does not exist."
_SENTENCES = {
    "NoSuchBucket": _BUCKET,
    "404": _BUCKET,
    "301": _REGION,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "400": "S3 refuses the request: check the credentials and AWS_S3_REGION.",
    "401": _CREDENTIALS,
    "403": _CREDENTIALS,
    "429": "S3 asks for fewer requests.",
}


class DocumentObject(msgspec.Struct, frozen=True, gc=False):
    """What S3 knows about a document. `version_id` is None in a bucket without versions."""

    size_bytes: int
    etag: str
    content_type: str
    version_id: str | None


class PresignedUpload(msgspec.Struct, frozen=True, gc=False):
    """A form to POST: every field, then the file as `file`, as multipart/form-data to `url`."""

    url: str
    fields: dict[str, str]


class Bucket:
    """The bucket `name` in `region`, open between `__aenter__` and `__aexit__`.

    Entering makes no call and does not fail: the client opens in the background, because finding
    credentials may mean asking a neighbour. An opening that failed is tried again on later use.
    """

    def __init__(self, name: str, region: str) -> None:
        self.name = name
        self.region = region
        self._stack = AsyncExitStack()
        self._opening: asyncio.Task[Any] | None = None
        self._reopen_at = 0.0

    async def __aenter__(self) -> Self:
        self._opening = asyncio.create_task(self._open(), name="open-bucket")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        opening, self._opening = self._opening, None
        if opening and not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        await self._stack.aclose()

    async def presign_upload(self, key: str, content_type: str, size_bytes: int) -> PresignedUpload:
        """Sign an upload of exactly this key, content type and size, good for UPLOAD_SECONDS.

        Makes no call to S3. Raises StorageUnavailableError without credentials.
        """
        with s3_errors():
            async with asyncio.timeout(_OPEN_SECONDS):
                client = await self._client()
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
        """What S3 says about `key`, None when it says that there is nothing.

        Takes ASK_SECONDS at most. Raises StorageUnavailableError when S3 can't be asked.
        """
        with s3_errors():
            async with asyncio.timeout(ASK_SECONDS):
                client = await self._client()
                try:
                    answer = await client.head_object(Bucket=self.name, Key=key)
                except ClientError as error:
                    if _status(error) != 404:  # noqa: PLR2004
                        raise
                    # A HEAD has no body, so a missing bucket looks like a missing document.
                    await client.head_bucket(Bucket=self.name)
                    return None
        return _document(answer)

    async def download(self, key: str, sink: Callable[[bytes], object]) -> DocumentObject:
        """Give every chunk of `key` to `sink` in order; returns what S3 says about it.

        Holds a few chunks of 256 KiB at a time. Raises DocumentNotFoundError,
        StorageUnavailableError, the latter possibly after some chunks.
        """
        with s3_errors():
            client = await self._client()
            answer = await client.get_object(Bucket=self.name, Key=key)
            body = answer["Body"]
            async with body:  # `as` would give aiohttp's response, which can't read in chunks
                while chunk := await body.read(_CHUNK_BYTES):
                    sink(chunk)
        return _document(answer)

    async def probe(self) -> str | None:
        """Ask for the bucket: None when all is well, else a sentence. Takes ASK_SECONDS at most."""
        try:
            with s3_errors():
                async with asyncio.timeout(ASK_SECONDS):
                    client = await self._client()
                    await client.head_bucket(Bucket=self.name)
        except ServiceError as error:
            return str(error)
        return None

    async def _client(self) -> Any:
        """The client. Cancelled, it leaves the opening to go on for the next caller."""
        opening = self._opening
        if opening is None:
            raise StorageUnavailableError("The bucket is not open.")
        if opening.done() and isinstance(opening.result(), StorageUnavailableError):
            if asyncio.get_running_loop().time() < self._reopen_at:
                raise StorageUnavailableError(str(opening.result()))
            opening = self._opening = asyncio.create_task(self._open(), name="open-bucket")
        client = await asyncio.shield(opening)
        if isinstance(client, StorageUnavailableError):
            raise StorageUnavailableError(str(client))
        return client

    async def _open(self) -> Any:
        """A client, or the StorageUnavailableError that says why there is none."""
        config = AioConfig(
            signature_version="s3v4",
            connect_timeout=2,
            read_timeout=20,
            max_pool_connections=50,
            retries={"total_max_attempts": 1},  # callers wait one second, or retry by themselves
        )
        try:
            with s3_errors():
                session = aioboto3.Session(region_name=self.region)
                if await session.get_credentials() is None:
                    raise NoCredentialsError
                return await self._stack.enter_async_context(session.client("s3", config=config))
        except StorageUnavailableError as error:
            return self._failed(error)
        except ValueError:
            # botocore's answer to an endpoint that is no URL.
            return self._failed(StorageUnavailableError("AWS_ENDPOINT_URL_S3 is not a URL."))

    def _failed(self, error: StorageUnavailableError) -> StorageUnavailableError:
        self._reopen_at = asyncio.get_running_loop().time() + _REOPEN_SECONDS
        return error


@contextmanager
def s3_errors() -> Iterator[None]:
    """Turn what botocore, aiohttp and the network raise into the service's errors."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            raise DocumentNotFoundError from error
        raise StorageUnavailableError(_answer_sentence(error)) from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise StorageUnavailableError(_fault_sentence(error)) from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer_sentence(error: ClientError) -> str:
    code = str(error.response.get("Error", {}).get("Code"))
    return (
        _SENTENCES.get(code)
        or _SENTENCES.get(str(_status(error)))
        or "S3 answers with an error of its own."
    )


def _fault_sentence(error: BaseException) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return "No usable AWS credentials were found."
    if isinstance(error, (TimeoutError, ConnectTimeoutError, ReadTimeoutError)):
        return "S3 does not answer in time."
    if isinstance(error, (EndpointConnectionError, HTTPClientError, aiohttp.ClientError, OSError)):
        return "S3 can't be reached."
    return "The S3 client's configuration is faulty."


def _document(answer: Any) -> DocumentObject:
    return DocumentObject(
        size_bytes=answer["ContentLength"],
        etag=answer.get("ETag", "").strip('"'),
        content_type=answer.get("ContentType", "application/octet-stream"),
        version_id=answer.get("VersionId"),
    )
