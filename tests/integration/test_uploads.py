"""POST /api/uploads and what a plain HTTP client does with its answer."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections import ChainMap

import aiohttp
import pytest
from aiohttp import web

from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.errors import (
    SessionRequiredError,
    StorageNotConfiguredError,
    StorageUnavailableError,
)
from inngest_outbox.identity.user import User
from inngest_outbox.web.resources.uploads import Uploads
from tests.support.oidc_browser import refusals

REGION = "eu-west-1"
CONTENT = b"%PDF-1.7 synced before answered"
NAME = "Übersicht 100% +ready/q3.pdf"
WANTED = {"documentName": NAME, "contentType": "application/pdf", "size": len(CONTENT)}


@pytest.fixture
def serve(aiohttp_client):
    """Serve the uploads of one user over a given storage."""

    async def _serve(storage, *, signed_in=True):
        async def user_of(request):
            if not signed_in:
                raise SessionRequiredError
            return User("dev", "u-1")

        app = web.Application(middlewares=[refusals])
        app.add_routes(Uploads(storage=storage, user_of=user_of).routes())
        return await aiohttp_client(app)

    return _serve


async def test_a_plain_http_client_uploads_with_the_answer(serve, bucket, s3, http):
    client = await serve(lambda: bucket)
    async with client.post("/api/uploads", json=WANTED) as answer:
        assert answer.status == 200
        signed = await answer.json()
    assert (signed["status"], signed["expiresInSeconds"]) == ("ok", 900)
    upload = signed["upload"]
    assert upload["method"] == "POST"
    form = aiohttp.FormData(upload["fields"])
    form.add_field("file", CONTENT, filename="any", content_type="application/octet-stream")
    async with http.post(upload["url"], data=form) as answer:
        assert answer.status == 204
    stored = s3.get_object(Bucket=bucket.name, Key=signed["documentName"])
    assert stored["Body"].read() == CONTENT
    assert stored["ContentType"] == "application/pdf"


async def test_an_upload_is_signed_for_one_object_of_one_type_and_size_and_for_15_minutes(
    serve, bucket
):
    """S3 refuses a field that no condition names, and a condition that no field meets."""
    client = await serve(lambda: bucket)
    before = dt.datetime.now(dt.UTC)
    async with client.post("/api/uploads", json=WANTED) as answer:
        signed = await answer.json()
    fields = signed["upload"]["fields"]
    policy = json.loads(base64.b64decode(fields.pop("policy")))
    conditions = policy["conditions"]
    exact = [one for one in conditions if isinstance(one, dict)]
    others = [one for one in conditions if one not in exact]
    assert fields.pop("x-amz-signature")
    assert dict(ChainMap(*exact)) == {"bucket": bucket.name, **fields}
    assert others == [["content-length-range", len(CONTENT), len(CONTENT)]]
    assert (fields["key"], fields["Content-Type"]) == (signed["documentName"], "application/pdf")
    assert fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert fields["x-amz-credential"].endswith(f"/{REGION}/s3/aws4_request")
    expires = dt.datetime.fromisoformat(policy["expiration"])
    quarter = dt.timedelta(minutes=15)
    second = dt.timedelta(seconds=1)
    assert before + quarter - second <= expires <= dt.datetime.now(dt.UTC) + quarter


async def test_a_faulty_field_is_refused_by_its_code(serve, bucket):
    client = await serve(lambda: bucket)
    for changed, code in (
        ({"documentName": None}, "document_name_required"),
        ({"documentName": "../a"}, "document_name_invalid"),
        ({"contentType": "pdf"}, "invalid_field"),
        ({"size": 0}, "invalid_field"),
        ({"size": 5 * 1024**3 + 1}, "invalid_field"),
    ):
        async with client.post("/api/uploads", json={**WANTED, **changed}) as answer:
            assert (await answer.json())["code"] == code, changed


async def test_storage_comes_before_the_session_and_the_session_before_the_body(serve, bucket):
    def not_configured():
        raise StorageNotConfiguredError

    for storage, code in (
        (not_configured, "storage_not_configured"),
        (lambda: bucket, "session_required"),
    ):
        client = await serve(storage, signed_in=False)
        async with client.post("/api/uploads", data=b"{") as answer:
            assert (await answer.json())["code"] == code


async def test_without_credentials_an_upload_is_storage_trouble(serve, bucket_name, s3_environment):
    s3_environment.delenv("AWS_ACCESS_KEY_ID")
    s3_environment.delenv("AWS_SECRET_ACCESS_KEY")
    async with Bucket(bucket_name, REGION) as bucket:
        client = await serve(lambda: bucket)
        async with client.post("/api/uploads", json=WANTED) as answer:
            assert (await answer.json())["code"] == StorageUnavailableError.code
