"""Every example of the documentation that is marked to run, against a real service."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import aiohttp
import boto3
import pytest
from dotenv import dotenv_values

from inngest_outbox.dev.fake_inngest.event_api import EventApi
from tests.support.examples import (
    ROOT,
    Example,
    examples,
    matches,
    pages_that_need,
    run,
)
from tests.support.fleet import environment, running
from tests.support.s3_server import running_s3
from tests.support.service_here import ServiceHere, service_here

BUCKET = "documents"
SIGN_IN = """
curl -sf -c cookies.txt -H 'Content-Type: application/json' http://127.0.0.1:3000/auth/dev-login \
     -d '{"email": "ada@example.com", "name": "Ada", "id": "u-1"}'
"""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


async def run_all(
    page: Path, needs: str, service: ServiceHere, inngest: EventApi, folder: Path
) -> list[str]:
    """What the page's examples print, each compared with what the page says."""
    printed = []
    for example in [Example(needs, SIGN_IN), *examples(page)]:
        commands = example.commands.replace("http://127.0.0.1:3000", service.url)
        commands = re.sub(r"http://127\.0\.0\.1:82\d\d", inngest.url, commands)
        url = f"sqlite:///{folder / 'outbox.db'}"
        printed.append(await run(commands, folder, {"OUTBOX_URL": url}))
        assert example.answer is None or matches(example.answer, printed[-1]), printed[-1]
    return printed


@pytest.mark.parametrize("page", pages_that_need("service"), ids=named)
async def test_the_examples_of_a_page_run_and_answer_what_it_says(
    page: Path, inngest_api: EventApi, tmp_path: Path
) -> None:
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}",
        inngest_api.url,
        OUTBOX_EVENT_KEYS="shop:0123456789abcdef",
    )
    async with service_here(settings) as service:
        printed = await run_all(page, "service", service, inngest_api, tmp_path)
    assert '"status":"error"' not in "".join(printed)


async def test_the_rewrites_of_a_next_front_end_lead_to_paths_of_the_service(
    inngest_api: EventApi, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "guide" / "nextjs.md").read_text(encoding="utf-8")
    rewrites = page.split("<!-- check: rewrites -->")[1].split("```")[1]
    sources = [source.removesuffix("/:path*") for source in re.findall('"(/[^"]+)"', rewrites)]
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
    async with (
        service_here(settings) as service,
        aiohttp.ClientSession() as http,
        http.get(f"{service.url}/openapi.json") as answer,
    ):
        paths = set((await answer.json())["paths"])
    assert sources
    for source in sources:
        assert any(path == source or path.startswith(f"{source}/") for path in paths), source
    assert ":3000" not in rewrites  # next dev listens there itself


async def test_the_banner_of_the_first_page_is_what_the_service_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guide" / "first-event.md").read_text(encoding="utf-8")
    told = page.split("<!-- check: banner -->\n```\n")[1].split("```")[0].splitlines()
    operators = dotenv_values(ROOT / ".env.example")["OPERATOR_EMAILS"]
    outbox = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(outbox, "", OPERATOR_EMAILS=operators)
    del settings["INNGEST_DEV"]
    async with running("serve", "--fake-inngest", environment=settings) as service:
        await service.said(r"^ *pages")
    said = [re.sub(r"\d{4,}|sqlite:\S+/", "", line.rstrip()) for line in service.lines]
    expected = [re.sub(r"\d{4,}|sqlite:\S+/", "", line.rstrip()) for line in told]
    assert said[said.index(expected[0]) :][: len(expected)] == expected


async def test_the_walk_from_upload_to_event_delivers_the_uploaded_document(
    inngest_api: EventApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("jq") is None and not os.environ.get("CI"):
        pytest.skip("no jq on this machine")
    [page] = pages_that_need("documents")
    (tmp_path / "q3.pdf").write_bytes(b"%PDF-1.7")
    own = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    with running_s3() as s3_url:
        s3 = boto3.client("s3", region_name="eu-west-1", endpoint_url=s3_url, **own)
        s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        async with service_here(settings) as service:
            await run_all(page, "documents", service, inngest_api, tmp_path)
            await inngest_api.ledger.wait_for_arrivals(1)
        [stored] = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        s3.close()
    assert stored["Size"] == len(b"%PDF-1.7")
    [event] = inngest_api.ledger.kept()
    assert stored["Key"].encode() in event.event
