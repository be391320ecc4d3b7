"""Where a signed form is posted to. Signing makes no call, so this needs no S3."""

from __future__ import annotations

import pytest

from service.documents.bucket import Bucket


@pytest.fixture(autouse=True)
def _aws(monkeypatch):
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
