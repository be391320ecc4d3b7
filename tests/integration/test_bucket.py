"""The bucket over a real S3 API: there, refusing, slow, away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from inngest_outbox.documents.bucket import Bucket, DocumentObject
from inngest_outbox.errors import DocumentNotFoundError, StorageUnavailableError
from tests.support.large_object import LargeObject
from tests.support.storage import PATIENCE_SECONDS

REGION = "eu-west-1"
AWKWARD_KEYS = ["a", "/a", "a//b", "a b+c%2Fd?e=f#g", "Übersicht/\U0001f600.pdf", "a" * 1024]
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


def discard(_chunk):
    pass


@contextlib.asynccontextmanager
async def opened(
    name: str = "documents", region: str = REGION, ask_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[Bucket]:
    """A bucket whose client was opened: that takes no part of the time that S3 has to answer."""
    async with Bucket(name, region, ask_seconds=ask_seconds) as bucket:
        await bucket.open_soon()
        yield bucket


async def test_head_tells_what_s3_knows(bucket, s3):
    assert await bucket.probe() is None
    for key in AWKWARD_KEYS:
        body = key.encode()
        s3.put_object(Bucket=bucket.name, Key=key, Body=body, ContentType="text/plain")
        known = DocumentObject(len(body), hashlib.md5(body).hexdigest(), "text/plain", None)
        assert await bucket.head(key) == known, key
    assert await bucket.head("nothing") is None
    s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    put = s3.put_object(Bucket=bucket.name, Key="a", Body=b"abc")
    assert (await bucket.head("a")).version_id == put["VersionId"]


async def test_download_gives_every_byte_in_order(bucket, s3, monkeypatch):
    content = bytes(range(256)) * 4096
    s3.put_object(Bucket=bucket.name, Key="a", Body=content, ContentType="text/plain")
    got = bytearray()
    async with opened(bucket.name, ask_seconds=0.0) as hasty:  # a download may take its time
        monkeypatch.setattr("inngest_outbox.documents.bucket._OPEN_SECONDS", 0.0)
        found = await hasty.download("a", got.extend)
    assert got == content
    assert found.size_bytes == len(content)
    with pytest.raises(DocumentNotFoundError):
        await bucket.download("nothing", discard)


async def test_a_missing_bucket_is_named_and_not_taken_for_a_missing_document(s3_environment):
    async with opened("no-such-bucket") as bucket:
        assert await bucket.probe() == "The bucket does not exist."
        for asked in (bucket.head("a"), bucket.download("a", discard)):
            with pytest.raises(StorageUnavailableError, match="does not exist"):
                await asked


async def test_a_download_that_breaks_off_is_storage_trouble(s3_environment, misbehaving):
    url = await misbehaving(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", close=True)
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", url)
    async with Bucket("documents", REGION) as bucket:
        with pytest.raises(StorageUnavailableError, match="can't be reached"):
            await bucket.download("a", discard)


async def test_credentials_that_come_later_are_found(s3_environment, bucket_name):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        s3_environment.delenv(name)
    async with opened(bucket_name) as bucket:
        assert await bucket.probe() == "No usable AWS credentials were found."
        s3_environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        s3_environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        assert "No usable AWS credentials" in await bucket.probe()
        bucket._reopen_at = 0.0
        assert await bucket.probe() is None


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (FORBIDDEN, "refuses the credentials"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "check the credentials"),
        (b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n", "error of its own"),
        (b"", "can't be reached"),
        (b"not HTTP\r\n\r\n", "can't be reached"),
    ],
    ids=["403", "400", "503", "closed", "nonsense"],
)
async def test_an_s3_that_refuses_can_not_be_asked(s3_environment, misbehaving, answer, sentence):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", await misbehaving(answer, close=True))
    async with opened() as bucket:
        assert sentence in await bucket.probe()
        with pytest.raises(StorageUnavailableError, match=sentence):
            await bucket.head("a")


async def test_a_document_that_may_not_be_read_is_not_missing(s3_environment, misbehaving):
    found = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", await misbehaving(FORBIDDEN, found, close=True))
    async with opened() as bucket:
        with pytest.raises(StorageUnavailableError, match="refuses the credentials"):
            await bucket.head("a")


async def test_a_document_without_a_type_and_a_tag_is_bytes(s3_environment, misbehaving):
    url = await misbehaving(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", close=True)
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", url)
    async with opened() as bucket:
        assert await bucket.head("a") == DocumentObject(3, "", "application/octet-stream", None)


async def test_an_s3_that_does_not_answer_is_waited_for_briefly(s3_environment, misbehaving):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", await misbehaving(b"", close=False))
    # The client's own limit is 20 s.
    async with opened(ask_seconds=0.1) as bucket, asyncio.timeout(15.0):
        assert await bucket.probe() == "S3 does not answer in time."
        with pytest.raises(StorageUnavailableError, match="in time"):
            await bucket.head("a")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("AWS_ENDPOINT_URL_S3", "no such thing", "AWS_ENDPOINT_URL_S3 is not a URL."),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "S3 can't be reached."),
        ("AWS_PROFILE", "no such thing", "The S3 client's configuration is faulty."),
    ],
    ids=["address", "away", "profile"],
)
async def test_a_faulty_environment_is_a_sentence_and_never_a_crash(
    s3_environment, variable, value, sentence
):
    s3_environment.setenv(variable, value)
    async with opened() as bucket:
        assert await bucket.probe() == sentence


@pytest.mark.parametrize(("name", "region"), [("no bucket!", REGION), ("documents", "no region")])
async def test_a_faulty_name_is_a_sentence_and_never_a_crash(s3_environment, name, region):
    async with opened(name, region) as bucket:
        assert "configuration is faulty" in await bucket.probe()


async def test_a_download_holds_a_small_part_of_a_large_object(s3_environment, aiohttp_server):
    large = LargeObject(64 * 1024**2)
    large.released.set()
    server = await aiohttp_server(large.app())
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", str(server.make_url("")).rstrip("/"))
    digest = hashlib.sha256()
    async with opened() as bucket:
        await bucket.probe()
        tracemalloc.start()
        try:
            found = await bucket.download("a", digest.update)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found.size_bytes == large.size_bytes
    assert digest.hexdigest() == large.sha256()
    assert peak_bytes < 8 * 1024**2
