"""The worker: it connects, runs the function, outlives refusals, and stops with its work done."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal

import pytest

from service.documents import worker
from service.documents.index_document import INDEXED
from service.errors import ConfigurationError
from service.inngest_client import make_client
from service.settings import Settings
from tests.integration.inngest_gateway import InngestGateway
from tests.integration.large_object import LargeObject

REGION = "eu-west-1"
CONTENT = bytes(range(256)) * 5000
LIMIT_SECONDS = 20


@pytest.fixture
def gateway(request):
    """Inngest's side, which refuses as many connections first as a test asks for."""
    return InngestGateway(refusals=getattr(request, "param", 0))


@pytest.fixture
async def settings(gateway, aiohttp_server, monkeypatch, bucket_name):
    """The settings of a worker for that gateway and a bucket."""
    for name in ("INNGEST_API_BASE_URL", "INNGEST_SIGNING_KEY", "INNGEST_ENV"):
        monkeypatch.delenv(name, raising=False)
    server = await aiohttp_server(gateway.app())
    return Settings.load(
        {
            "INNGEST_DEV": str(server.make_url("")).rstrip("/"),
            "AWS_S3_BUCKET": bucket_name,
            "AWS_S3_REGION": REGION,
        }
    )


@pytest.fixture
async def working(settings):
    """A worker at work, which is stopped by a signal at the end."""
    client = make_client(settings)
    task = asyncio.create_task(worker.run_worker(settings, client))
    yield task
    if not task.done():
        os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, LIMIT_SECONDS)
    # The SDK's client has no close of its own; its open socket would be reported later.
    await client._http_client._http_client.aclose()


@pytest.mark.usefixtures("working")
async def test_a_document_is_indexed_and_announced_in_a_step_of_its_own(gateway, s3, bucket_name):
    s3.put_object(Bucket=bucket_name, Key="a", Body=CONTENT, ContentType="text/plain")
    run = gateway.run("e-1", {"documentName": "a", "bucket": bucket_name})
    outcome = await asyncio.wait_for(run, LIMIT_SECONDS)
    assert outcome.status == "DONE"
    assert outcome.steps == ("read", "announce")
    assert outcome.output["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    [event] = gateway.events
    assert (event["name"], event["id"]) == (INDEXED, "e-1-indexed")
    assert event["data"] == outcome.output


@pytest.mark.usefixtures("working")
async def test_a_document_that_is_not_there_is_not_tried_again(gateway, bucket_name):
    run = gateway.run("e-1", {"documentName": "nothing", "bucket": bucket_name})
    outcome = await asyncio.wait_for(run, LIMIT_SECONDS)
    assert outcome.status == "ERROR"
    assert outcome.no_retry


@pytest.mark.usefixtures("working")
async def test_an_s3_that_can_not_be_asked_is_tried_again(gateway, s3, bucket_name):
    s3.delete_bucket(Bucket=bucket_name)
    run = gateway.run("e-1", {"documentName": "a", "bucket": bucket_name})
    outcome = await asyncio.wait_for(run, LIMIT_SECONDS)
    assert outcome.status == "ERROR"
    assert not outcome.no_retry


@pytest.mark.parametrize("gateway", [2], indirect=True)
async def test_a_refused_connection_is_tried_again(gateway, working, monkeypatch, bucket_name):
    monkeypatch.setattr(worker, "_RECONNECT_SECONDS", 0.01)
    run = gateway.run("e-1", {"documentName": "nothing", "bucket": bucket_name})
    await asyncio.wait_for(run, LIMIT_SECONDS)
    assert gateway.refusals == 0
    assert not working.done()


@pytest.fixture
async def large_object(aiohttp_server, s3_environment):
    """An S3 API whose one object is held back until the test releases it."""
    large = LargeObject(size_bytes=len(CONTENT))
    server = await aiohttp_server(large.app())
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", str(server.make_url("")).rstrip("/"))
    return large


async def test_a_stop_lets_the_run_at_work_finish(bucket_name, large_object, gateway, working):
    run = asyncio.create_task(gateway.run("e-1", {"documentName": "a", "bucket": bucket_name}))
    await asyncio.wait_for(large_object.asked.wait(), LIMIT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(gateway.paused.wait(), LIMIT_SECONDS)
    assert not working.done()
    large_object.released.set()
    await asyncio.wait_for(working, LIMIT_SECONDS)
    assert gateway.replied == 1
    run.cancel()


async def test_a_worker_without_a_bucket_says_what_to_set():
    settings = Settings.load({})
    with pytest.raises(ConfigurationError) as caught:
        await worker.run_worker(settings, make_client(settings))
    assert set(caught.value.faults) == {
        "AWS_S3_BUCKET: required by the worker",
        "AWS_S3_REGION: required by the worker",
    }
