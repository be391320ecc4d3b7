"""The Next.js example in Chromium: by its one command, and against a service that goes away."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import boto3
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.browser import Browser, chromium
from tests.support.fleet import environment, running
from tests.support.front_server import FrontServer
from tests.support.nextjs_example import example_in, front_end, settings_of_one_command, sign_in
from tests.support.node_packages import ROOT
from tests.support.s3_server import running_s3
from tests.support.storage import PATIENCE_SECONDS

SECRET = "a-secret-of-the-tests-only"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages, beside a built copy of the client."""
    return example_in(tmp_path_factory.mktemp("nextjs"))


async def index(browser: Browser, document: Path) -> None:
    await asyncio.to_thread(document.write_text, "a report")
    await browser.click("nav a[href='/documents']")
    await browser.shows("h1", "Index a document")
    await browser.fill("input[type=file]", str(document))
    await browser.click("button")


def tracked(example: Path) -> dict[str, bytes]:
    """The files that are in the repository, as they are in the copy."""
    source = ROOT / "examples" / "nextjs"
    names = [path.relative_to(example) for path in example.rglob("*") if path.is_file()]
    kept = [
        name for name in names if "node_modules" not in name.parts and ".next" not in name.parts
    ]
    return {str(name): (example / name).read_bytes() for name in kept if (source / name).exists()}


def test_the_one_command_ends_where_the_service_is_not_installed_or_does_not_start(
    tmp_path: Path, example: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 7\n")
    python.chmod(0o755)
    told = "The service is not installed. Run `make nextjs` in the repository's folder.\n"
    for given, outcome in (("no-such-python", (1, told)), (str(python), (7, ""))):
        done = subprocess.run(
            ["node", "start.mjs"],
            cwd=example,
            env={**os.environ, "PYTHON": given, "OUTBOX_SERVICE_URL": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == outcome


async def test_one_command_starts_the_service_and_the_front_end_without_a_bucket(
    tmp_path: Path, example: Path
) -> None:
    before = tracked(example)
    settings = settings_of_one_command(tmp_path)
    async with (
        front_end(example, "start.mjs", settings=settings) as url,
        chromium(tmp_path / "profile") as browser,
    ):
        await sign_in(browser, url)
        await browser.click("button")
        await browser.shows("[role=status]", "completed")
        assert (await browser.text("nav")).split() == ["Reports", "Documents"]
        await index(browser, tmp_path / "report.txt")
        await browser.shows("[role=alert]", "AWS_S3_REGION, AWS_S3_BUCKET")
    assert "/api/reports" in (example / "outbox.d.ts").read_text()
    assert tracked(example) == before


async def test_a_page_shows_that_it_waits_and_a_document_reaches_inngest(
    tmp_path: Path, example: Path, inngest_api: FakeInngest
) -> None:
    with running_s3() as s3:
        make_bucket(s3)
        settings = environment(
            f"sqlite:///{tmp_path / 'outbox.db'}",
            inngest_api.url,
            NEXTAUTH_SECRET=SECRET,
            EVENT_TYPES_FILE=str(example / "event-types.yaml"),
            AWS_ENDPOINT_URL_S3=s3,
            AWS_S3_REGION="us-east-1",
            **KEYS,
        )
        async with (
            running("serve", environment=settings) as service,
            FrontServer(example, service.url) as between,
            front_end(
                example,
                "node_modules/next/dist/bin/next",
                "dev",
                settings={"NEXTAUTH_SECRET": SECRET, "OUTBOX_SERVICE_URL": between.url},
            ) as url,
            chromium(tmp_path / "profile") as browser,
        ):
            await sign_in(browser, url)
            await between.cut()
            await browser.run("document.querySelector('select').value = 'stock'")
            await browser.click("button")
            await browser.shows("[role=status]", "waiting for the service")
            await browser.shows("nav", "Waiting in this browser: 1")
            await between.mend()
            await browser.shows("[role=status]", "completed")
            await index(browser, tmp_path / "report.txt")
            await browser.shows("[role=status]", "completed")
        names = [kept.event.decode() for kept in inngest_api.ledger.kept()]
    assert '"name":"report/requested"' in names[0]
    assert '"report":"stock"' in names[0]
    assert '"documentName":"users/' in names[1]
    assert '/report.txt"' in names[1]


def make_bucket(s3: str) -> None:
    s3_client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    s3_client.create_bucket(Bucket="documents")
