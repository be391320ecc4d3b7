"""From an upload to the event that Inngest gets, through the running service alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest

from inngest_outbox.bootstrap import web_part
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.documents import bucket
from inngest_outbox.documents.bucket import Bucket
from tests.support.fleet import environment
from tests.support.s3_server import running_s3
from tests.support.service_here import service_here
from tests.support.storage import PATIENCE_SECONDS, eventually

CONTENT = b"%PDF-1.7 synced before answered"


@contextlib.contextmanager
def client(url: str) -> Iterator[Any]:
    own = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    s3 = boto3.client("s3", region_name="eu-west-1", endpoint_url=url, **own)
    try:
        yield s3
    finally:
        s3.close()


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """An S3 API with the bucket `documents`."""
    place = {"LocationConstraint": "eu-west-1"}
    with running_s3() as url:
        with client(url) as s3:
            s3.create_bucket(Bucket="documents", CreateBucketConfiguration=place)
        yield url


def delete_object(url: str, key: str) -> None:
    with client(url) as s3:
        s3.delete_object(Bucket="documents", Key=key)


@dataclass
class Browser:
    """A signed-in user of the service."""

    url: str
    http: aiohttp.ClientSession

    async def post(self, path: str, body: dict[str, object], **headers: str) -> tuple[int, dict]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(f"{self.url}{path}", json=body, headers=named) as answer:
            return answer.status, await answer.json()

    async def storage(self) -> str:
        async with self.http.get(f"{self.url}/readyz") as answer:
            return (await answer.json())["detail"]["storage"]

    async def upload(self) -> str:
        """Upload CONTENT; the name under which it is known."""
        status, signed = await self.post(
            "/api/uploads",
            {"documentName": "q3.pdf", "contentType": "application/pdf", "size": len(CONTENT)},
        )
        assert status == 200, signed
        form = aiohttp.FormData()
        for name, value in signed["upload"]["fields"].items():
            form.add_field(name, value)
        form.add_field("file", CONTENT, filename="q3.pdf")
        async with self.http.post(signed["upload"]["url"], data=form) as answer:
            assert answer.status == 204
        return signed["documentName"]


@pytest.fixture
async def browser(
    tmp_path: Path,
    inngest_api: FakeInngest,
    s3_url: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Browser]:
    """A user of a service that requires documents; `request.param` changes its environment."""
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}",
        inngest_api.url,
        DOCUMENT_CHECK="require",
    )
    given = {"AWS_ENDPOINT_URL_S3": s3_url, **getattr(request, "param", {})}
    for name, value in {**settings, **given}.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    # A machine that stalls is no S3 that is away.
    patient = functools.partial(Bucket, ask_seconds=PATIENCE_SECONDS)
    monkeypatch.setattr(web_part, "Bucket", patient)
    monkeypatch.setitem(bucket._CLIENT, "connect_timeout", PATIENCE_SECONDS)
    monkeypatch.setattr(bucket, "_OPEN_SECONDS", PATIENCE_SECONDS)
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        service_here(settings) as service,
        aiohttp.ClientSession(cookie_jar=jar) as http,
    ):
        user = Browser(service.url, http)
        status, _ = await user.post("/auth/dev-login", {"email": "ada@example.com"})
        assert status == 200
        yield user


async def test_an_uploaded_document_arrives_with_what_s3_knows_and_one_that_is_not_there_never(
    browser: Browser, inngest_api: FakeInngest, s3_url: str
) -> None:
    status, refusal = await browser.post("/api/route", {"documentName": "nothing"})
    assert (status, refusal["code"]) == (404, "document_not_found")
    name = await browser.upload()
    body: dict[str, object] = {"documentName": name}
    status, accepted = await browser.post("/api/route", body, Idempotency_Key="k-1")
    assert status == 200, accepted
    arrival = await inngest_api.ledger.wait_for_id(accepted["eventId"])
    data = json.loads(arrival.event)["data"]
    assert data.pop("appSettings")
    known = {
        "size": len(CONTENT),
        "etag": hashlib.md5(CONTENT).hexdigest(),
        "contentType": "application/pdf",
        "versionId": None,
    }
    place = {"bucket": "documents", "region": "eu-west-1"}
    assert data == {"documentName": name, **place, "object": known}
    assert await eventually(browser.storage, lambda said: said == "ok")
    await asyncio.to_thread(delete_object, s3_url, name)

    async def repeated() -> tuple[int, str | None]:
        status, told = await browser.post("/api/route", body, Idempotency_Key="k-1")
        return status, told.get("code")

    # A document that was found is not asked for again within 5 s.
    assert await eventually(repeated, lambda told: told == (404, "document_not_found"))


@pytest.mark.parametrize("browser", [{"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}], indirect=True)
async def test_an_s3_that_is_away_refuses_no_event(
    browser: Browser, inngest_api: FakeInngest
) -> None:
    status, accepted = await browser.post("/api/route", {"documentName": "nothing"})
    assert status == 200, accepted
    arrival = await inngest_api.ledger.wait_for_id(accepted["eventId"])
    assert json.loads(arrival.event)["data"]["unchecked"] is True
    said = await eventually(browser.storage, lambda said: said != "not asked yet")
    assert said == "S3 can't be reached."
