"""The times of a bucket: how long S3 is waited for, and how old an answer about it may be."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast
from unittest.mock import Mock

import botocore.exceptions
import pytest

from inngest_outbox.documents.boto import Boto
from inngest_outbox.documents.bucket import Bucket, BucketHealth
from inngest_outbox.errors import StorageUnavailableError
from tests.support.storage import eventually
from tests.support.virtual_time import in_virtual_time


class Asked:
    """A bucket whose answers wait until they may come."""

    def __init__(self) -> None:
        self.says: str | None = None
        self.times = 0
        self.seconds = 0.0
        self.may_answer = asyncio.Event()

    async def probe(self) -> str | None:
        self.times += 1
        await self.may_answer.wait()
        await asyncio.sleep(self.seconds)
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
    bucket.seconds = 5.0
    health = BucketHealth(cast("Any", bucket))
    told = []
    for seconds in (5.1, 9.8, 0.2, 1.0, 4.1, 10.0, 5.1, 0.0):
        bucket.says = None if 0 < len(told) < 5 else "No."
        told.append((health.tell(), bucket.times))
        await asyncio.sleep(seconds)
    sentences = ["not asked yet", *["No."] * 4, "ok", "ok", "No."]
    assert told == [*zip(sentences, (0, 1, 1, 1, 2, 2, 2, 3), strict=True)]


class Silent:
    """A session of aioboto3 that has credentials after some looks. Its S3 never answers."""

    def __init__(self, looks_before: int = 0, look_seconds: float = 0.0) -> None:
        self.looks = -looks_before
        self.look_seconds = look_seconds
        self.sign_seconds = 4.9  # as credentials that have to be asked for

    async def get_credentials(self) -> object:
        await asyncio.sleep(self.look_seconds)
        self.looks += 1
        return object() if self.looks > 0 else None

    def client(self, *_: object, config: dict[str, Any], **__: object) -> Any:
        # botocore adds to the retries of whoever gives them.
        assert config | {"retries": config["retries"]["total_max_attempts"]} == {
            "signature_version": "s3v4",
            "connect_timeout": 2,
            "read_timeout": 20,
            "max_pool_connections": 50,
            "retries": 1,
        }
        return contextlib.nullcontext(self)

    async def generate_presigned_post(self, **_: object) -> dict[str, Any]:
        await asyncio.sleep(self.sign_seconds)
        return {"url": "https://s3.own.test", "fields": {}}

    async def head_object(self, **_: object) -> None:
        await asyncio.sleep(0.9)
        missing: Any = {"ResponseMetadata": {"HTTPStatusCode": 404}}
        raise botocore.exceptions.ClientError(missing, "HeadObject")

    async def head_bucket(self, **_: object) -> None:
        await asyncio.Event().wait()


def bucket_of(session: Silent) -> Bucket:
    bucket = Bucket("documents", "eu-west-1")
    bucket._boto = Boto(session, dict, botocore.exceptions)
    return bucket


async def refused(opened: Bucket) -> str:
    with pytest.raises(StorageUnavailableError) as error:
        await opened.head("a")
    return str(error.value)


@in_virtual_time
async def test_a_post_waits_one_second_for_s3_and_credentials_are_looked_for_every_5_s() -> None:
    session, loop = Silent(looks_before=2), asyncio.get_running_loop()
    async with bucket_of(session) as opened:
        for looks in (-1, 0):
            for seconds in (0.0, 4.9, 0.1):
                assert await refused(opened) == "No usable AWS credentials were found."
                assert session.looks == looks
                await asyncio.sleep(seconds)
        assert await refused(opened) == "S3 does not answer in time."
        assert loop.time() == pytest.approx(11.0)
        assert (await opened.presign_upload("a", "a/b", 1)).url == "https://s3.own.test"
        session.sign_seconds = 5.1
        with pytest.raises(StorageUnavailableError, match="in time"):
            await opened.presign_upload("a", "a/b", 1)
    faulty = Silent()
    async with bucket_of(faulty) as opened:
        faulty.client = Mock(side_effect=ValueError)  # type: ignore[method-assign]
        for _ in range(2):
            assert await refused(opened) == "AWS_ENDPOINT_URL_S3 is not a URL."
        assert faulty.looks == 1


@in_virtual_time
async def test_a_client_that_opens_slowly_is_for_the_next_caller() -> None:
    async with bucket_of(Silent(look_seconds=1.05)) as opened:
        assert await refused(opened) == "S3 does not answer in time."
        assert (await opened.presign_upload("a", "a/b", 1)).url == "https://s3.own.test"
    async with bucket_of(Silent()) as opened:
        await opened._loading.acquire()  # as while boto is loaded, which takes none of the time
        asyncio.get_running_loop().call_later(2.0, opened._loading.release)
        assert (await opened.presign_upload("a", "a/b", 1)).url == "https://s3.own.test"


@in_virtual_time
async def test_a_bucket_that_closes_while_it_opens_opens_no_more() -> None:
    session = Silent(look_seconds=1.5)
    async with bucket_of(session) as bucket:
        opening = bucket.open_soon()
    assert opening.cancelled()
    assert await refused(bucket) == "The bucket is not open."
    session.look_seconds = 0.0
    async with bucket:
        assert (await bucket.presign_upload("a", "a/b", 1)).url == "https://s3.own.test"
