"""The Next.js example in Chromium, against a whole service, S3 and Inngest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import boto3
import pytest

from service.dev.fake_inngest.server import FakeInngest
from tests.support.browser import chromium
from tests.support.fleet import Process, environment, running
from tests.support.free_port import free_port
from tests.support.node_packages import ROOT, built_client, installed
from tests.support.s3_server import running_s3

SECRET = "a-secret-of-the-tests-only"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages, beside a built copy of the client."""
    folder = tmp_path_factory.mktemp("nextjs")
    built_client(folder)
    return installed(ROOT / "examples" / "nextjs", folder / "examples" / "nextjs")


async def compiled(url: str) -> None:
    """The development server compiles a page when it is first asked for."""
    async with aiohttp.ClientSession() as http:
        for path in ("/", "/api/auth/signin"):
            async with http.get(url + path) as answer:
                assert answer.status == 200


@contextlib.asynccontextmanager
async def front_end(example: Path, service: Process) -> AsyncIterator[str]:
    port = free_port()
    url = f"http://localhost:{port}"
    settings = {
        "NEXTAUTH_SECRET": SECRET,
        "NEXTAUTH_URL": url,
        "OUTBOX_SERVICE_URL": service.url,
        "NEXT_TELEMETRY_DISABLED": "1",
    }
    node = Process(
        await asyncio.create_subprocess_exec(
            str(shutil.which("node")),
            "node_modules/next/dist/bin/next",
            "dev",
            "--port",
            str(port),
            cwd=example,
            env={**os.environ, **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    )
    reading = asyncio.create_task(node.read())
    try:
        await node.said("Ready in")
        await compiled(url)
        yield url
    finally:
        await node.stop()
        await reading


def make_bucket(s3: str) -> None:
    s3_client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    s3_client.create_bucket(Bucket="documents")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_uploaded_document_is_posted_and_its_result_is_shown(
    tmp_path: Path, example: Path, inngest_api: FakeInngest
) -> None:
    document = tmp_path / "report.txt"
    document.write_text("a report")
    with running_s3() as s3:
        make_bucket(s3)
        settings = environment(
            f"sqlite:///{tmp_path / 'outbox.db'}",
            inngest_api.url,
            NEXTAUTH_SECRET=SECRET,
            AWS_ENDPOINT_URL_S3=s3,
            AWS_S3_REGION="us-east-1",
            **KEYS,
        )
        async with (
            running("serve", environment=settings) as service,
            front_end(example, service) as url,
            chromium(tmp_path / "profile") as browser,
        ):
            await browser.open(f"{url}/api/auth/signin")
            await browser.fill("#input-email-for-credentials-provider", "ada@example.com")
            await browser.click("button[type=submit]")
            await browser.shows("h1", "Index a document")
            await browser.fill("input[type=file]", str(document))
            await browser.click("button")
            await browser.shows("[role=status]", "completed")
        [event_id] = inngest_api.ledger.ids
        [arrival] = inngest_api.ledger.kept(event_id=event_id)
        assert '"documentName":"users/' in arrival.event.decode()
