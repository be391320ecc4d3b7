"""Signed forms: where they are posted to. Signing makes no call, so this needs no S3."""

from __future__ import annotations

import asyncio

import pytest
from botocore.loaders import JSONFileLoader

from inngest_outbox.documents import bucket as bucket_module
from inngest_outbox.documents.boto import load_boto
from inngest_outbox.documents.bucket import Bucket
from tests.support.storage import PATIENCE_SECONDS


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


async def test_a_bucket_without_a_region_is_in_that_of_boto(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    async with Bucket("documents", "", ask_seconds=0.0) as opened:  # S3 is not asked
        form = await opened.presign_upload("users/u/a", "application/pdf", 5)
    assert "/eu-west-3/s3/" in form.fields["x-amz-credential"]


async def test_boto_is_loaded_once_for_all_who_come_first(monkeypatch):
    loads = []

    def load():
        loads.append(load_boto())
        # Large files would stop the event loop: later there are none.
        monkeypatch.setattr(JSONFileLoader, "load_file", lambda *_: None)
        return loads[-1]

    monkeypatch.setattr(bucket_module, "load_boto", load)
    async with Bucket("documents", "eu-west-1") as opened:
        signing = [opened.presign_upload(f"users/u/{n}", "a/b", 5) for n in range(3)]
        assert len({form.fields["key"] for form in await asyncio.gather(*signing)}) == 3
    assert len(loads) == 1
