"""The function, run by the Inngest SDK's own test client, on documents in a real S3 API."""

from __future__ import annotations

import asyncio
import hashlib

import inngest
import pytest
from inngest.experimental import mocked

from service.documents.bucket import Bucket
from service.documents.index_document import INDEXED, index_function

REGION = "eu-west-1"
CONTENT = bytes(range(256)) * 5000


class Client(mocked.Inngest):
    """The SDK's test client, and what was sent with it."""

    def __init__(self):
        super().__init__(app_id="documents")
        self.sent = []

    async def send(self, events, *, skip_middleware=False):
        self.sent.append(events)
        return ["00000000000000000000000000"]


@pytest.fixture
def loop():
    """The loop on which the SDK's test client runs the function."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def run(loop, bucket_name):
    """Run the function on an event with given data; the result and what was sent."""
    bucket = Bucket(bucket_name, REGION)
    loop.run_until_complete(bucket.__aenter__())

    def _run(**data):
        client = Client()
        event = inngest.Event(name="documents/aws.index", id="e-1", data=data)
        return mocked.trigger(
            index_function(client, bucket, "documents/aws.index"), event, client
        ), client.sent

    yield _run
    loop.run_until_complete(bucket.__aexit__(None, None, None))


def test_a_document_is_read_and_announced(run, s3, bucket_name):
    s3.put_object(Bucket=bucket_name, Key="a", Body=CONTENT, ContentType="text/plain")
    result, sent = run(documentName="a", bucket=bucket_name, region=REGION)
    facts = {
        "documentName": "a",
        "bucket": bucket_name,
        "region": REGION,
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "contentType": "text/plain",
    }
    assert result.status is mocked.Status.COMPLETED
    assert result.output == facts
    assert [(event.name, event.id, event.data) for event in sent] == [
        (INDEXED, "e-1-indexed", facts)
    ]


def test_a_document_that_is_not_there_fails_the_run_for_good(run, bucket_name):
    result, sent = run(documentName="nothing", bucket=bucket_name)
    assert result.status is mocked.Status.FAILED
    assert isinstance(result.error, inngest.NonRetriableError)
    assert sent == []


@pytest.mark.parametrize(
    "data",
    [{}, {"documentName": ""}, {"documentName": "../a"}, {"documentName": "a", "bucket": "b"}],
)
def test_an_event_that_can_not_be_processed_fails_the_run_for_good(run, s3, bucket_name, data):
    s3.put_object(Bucket=bucket_name, Key="a", Body=CONTENT)
    result, sent = run(**data)
    assert isinstance(result.error, inngest.NonRetriableError)
    assert sent == []


def test_an_s3_that_can_not_be_asked_leaves_the_run_to_be_tried_again(run, s3, bucket_name):
    s3.delete_bucket(Bucket=bucket_name)
    result, _ = run(documentName="a", bucket=bucket_name)
    assert result.status is mocked.Status.FAILED
    assert not isinstance(result.error, inngest.NonRetriableError)
    s3.create_bucket(Bucket=bucket_name, CreateBucketConfiguration={"LocationConstraint": REGION})
