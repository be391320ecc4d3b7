"""Signed forms: where they are posted to. Signing makes no call, so this needs no S3."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from datetime import datetime
from typing import Any

import botocore.exceptions
import pytest

from service.documents import bucket as bucket_module
from service.documents.boto import Boto, load_boto
from service.documents.bucket import Bucket
from service.errors import StorageUnavailableError
from tests.support.storage import PATIENCE_SECONDS
from tests.support.virtual_time import in_virtual_time


@pytest.fixture(autouse=True)
def _aws(monkeypatch):
    monkeypatch.setattr(bucket_module, "_OPEN_SECONDS", PATIENCE_SECONDS)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.mark.parametrize(
    ("endpoint", "bucket", "url"),
    [
        (None, "documents", "https://documents.s3.eu-west-1.amazonaws.com/"),
        (None, "my.documents", "https://s3.eu-west-1.amazonaws.com/my.documents"),
        ("http://localhost:9000", "documents", "http://localhost:9000/documents"),
        ("https://s3.own.test/", "documents", "https://s3.own.test/documents"),
    ],
)
async def test_a_form_goes_to_the_region_or_to_the_configured_endpoint(
    monkeypatch, endpoint, bucket, url
):
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    async with Bucket(bucket, "eu-west-1") as opened:
        form = await opened.presign_upload("users/u/a", "application/pdf", 5)
    assert form.url == url


async def test_a_form_takes_the_signed_document_alone_for_a_quarter_of_an_hour():
    before = time.time()
    async with Bucket("documents", "eu-west-1") as opened:
        form = await opened.presign_upload("users/u/a", "application/pdf", 5)
    policy = json.loads(base64.b64decode(form.fields["policy"]))
    assert form.fields["Content-Type"] == "application/pdf"
    assert {"Content-Type": "application/pdf"} in policy["conditions"]
    assert ["content-length-range", 5, 5] in policy["conditions"]
    assert {"key": "users/u/a"} in policy["conditions"]
    ends = datetime.fromisoformat(policy["expiration"]).timestamp()
    assert int(before) + 900 <= ends <= time.time() + 901


async def test_boto_is_loaded_once_for_all_who_come_first(monkeypatch):
    loads = []
    monkeypatch.setattr(bucket_module, "load_boto", lambda: loads.append(1) or load_boto())
    async with Bucket("documents", "eu-west-1") as opened:
        signing = [opened.presign_upload(f"users/u/{n}", "a/b", 5) for n in range(3)]
        assert len({form.fields["key"] for form in await asyncio.gather(*signing)}) == 3
    assert loads == [1]


class Silent:
    """A session of aioboto3 that has credentials after some looks. Its S3 never answers."""

    def __init__(self, looks_before: int) -> None:
        self.looks = -looks_before

    async def get_credentials(self) -> object:
        self.looks += 1
        return object() if self.looks > 0 else None

    def client(self, *_: object, **__: object) -> Any:
        return contextlib.nullcontext(self)

    async def generate_presigned_post(self, **_: object) -> dict[str, Any]:
        await asyncio.sleep(4.9)  # as credentials that have to be asked for
        return {"url": "https://s3.own.test", "fields": {}}

    async def head_object(self, **_: object) -> None:
        await asyncio.Event().wait()


async def refused(opened: Bucket) -> str:
    with pytest.raises(StorageUnavailableError) as error:
        await opened.head("a")
    return str(error.value)


@in_virtual_time
async def test_a_post_waits_one_second_for_s3_and_credentials_are_looked_for_every_5_s() -> None:
    session, loop = Silent(looks_before=1), asyncio.get_running_loop()
    async with Bucket("documents", "eu-west-1") as opened:
        opened._boto = Boto(session, dict, botocore.exceptions)
        for _ in range(2):
            assert await refused(opened) == "No usable AWS credentials were found."
        await asyncio.sleep(4.9)
        assert (await refused(opened), loop.time()) == (
            "No usable AWS credentials were found.",
            4.9,
        )
        await asyncio.sleep(0.1)
        assert await refused(opened) == "S3 does not answer in time."
        assert loop.time() == pytest.approx(6.0)
        assert (await opened.presign_upload("a", "a/b", 1)).url == "https://s3.own.test"
