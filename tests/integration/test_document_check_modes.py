"""The three modes of DOCUMENT_CHECK with S3 there, slow, refusing and away."""

from __future__ import annotations

import hashlib

import pytest

from service.documents.bucket import Bucket
from service.documents.document_check import DocumentCheck
from service.errors import DocumentNotFoundError
from tests.support.free_port import free_port

REGION = "eu-west-1"
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
WITHOUT_S3 = {"off": {}, "enrich": {}, "require": {"unchecked": True}}


@pytest.fixture(params=["slow", "refusing", "away"])
async def trouble(request, s3_environment, misbehaving):
    """The environment points at an S3 that is in this trouble."""
    url = f"http://127.0.0.1:{free_port()}"
    if request.param == "slow":
        url = await misbehaving(b"", close=False)
    elif request.param == "refusing":
        url = await misbehaving(REFUSAL, close=True)
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", url)


@pytest.mark.parametrize("mode", ["enrich", "require"])
async def test_what_s3_knows_goes_into_the_event(bucket, s3, mode):
    s3.put_object(Bucket=bucket.name, Key="a", Body=b"abc", ContentType="text/plain")
    assert await DocumentCheck(mode, bucket)("a") == {
        "object": {
            "size": 3,
            "etag": hashlib.md5(b"abc").hexdigest(),
            "contentType": "text/plain",
            "versionId": None,
        }
    }


async def test_only_require_refuses_what_s3_does_not_have(bucket):
    assert await DocumentCheck("off", bucket)("a") == {}
    assert await DocumentCheck("enrich", bucket)("a") == {}
    with pytest.raises(DocumentNotFoundError):
        await DocumentCheck("require", bucket)("a")


@pytest.mark.usefixtures("trouble")
@pytest.mark.parametrize("mode", ["off", "enrich", "require"])
async def test_no_mode_refuses_while_s3_is_in_trouble(mode):
    async with Bucket("documents", REGION) as bucket:
        assert await DocumentCheck(mode, bucket)("a") == WITHOUT_S3[mode]
