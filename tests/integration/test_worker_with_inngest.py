"""The worker with a real Inngest server; INNGEST_TEST_URL names one, such as a dev server's."""

from __future__ import annotations

import asyncio
import hashlib
import os

import inngest
import pytest

from inngest_outbox.config.settings import Settings
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.documents.index_document import INDEXED, index_function
from inngest_outbox.inngest.address import make_client
from inngest_outbox.inngest.worker import Work, WorkerStatus, serve

URL = os.environ.get("INNGEST_TEST_URL", "")
INDEX = "documents/aws.index"
REGION = "eu-west-1"
CONTENT = bytes(range(256)) * 5000
LIMIT_SECONDS = 180

pytestmark = pytest.mark.skipif(not URL, reason="INNGEST_TEST_URL names no Inngest server")


@pytest.fixture
async def client():
    """A client of that server."""
    client = make_client(Settings.load({"INNGEST_DEV": URL}))
    yield client
    await client._http_client._http_client.aclose()


@pytest.fixture
async def announced(client, bucket_name):
    """What the worker announces, as a second function in the same app sees it."""
    seen = asyncio.Queue()

    @client.create_function(fn_id="witness", trigger=inngest.TriggerEvent(event=INDEXED))
    async def witness(ctx):
        if ctx.event.data["bucket"] == bucket_name:
            seen.put_nowait(dict(ctx.event.data))

    stop = asyncio.Event()
    async with Bucket(bucket_name, REGION) as bucket:
        work = Work(client, [index_function(client, bucket, INDEX), witness], WorkerStatus())
        serving = asyncio.create_task(serve(work, stop, drain_seconds=5))
        yield seen
        stop.set()
        await asyncio.wait_for(serving, LIMIT_SECONDS)


async def test_an_event_ends_in_a_document_that_is_announced(client, announced, s3, bucket_name):
    s3.put_object(Bucket=bucket_name, Key="a", Body=CONTENT, ContentType="text/plain")
    data = {"documentName": "a", "bucket": bucket_name}
    facts = None
    async with asyncio.timeout(LIMIT_SECONDS):
        # An event that arrives before the worker is known to the server runs nothing.
        while facts is None:
            await client.send(inngest.Event(name=INDEX, data=data))
            try:
                facts = await asyncio.wait_for(announced.get(), 2)
            except TimeoutError:
                continue
    assert facts["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert facts["size"] == len(CONTENT)
