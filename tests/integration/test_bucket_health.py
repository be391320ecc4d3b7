"""What a health check tells about the bucket, without waiting for it."""

from __future__ import annotations

import asyncio

import pytest

from service.documents.bucket import Bucket, BucketHealth
from tests.support.virtual_time import in_virtual_time

REGION = "eu-west-1"


async def test_it_tells_what_was_said_and_asks_in_the_background(bucket):
    health = BucketHealth(bucket)
    assert health.tell() == "not asked yet"
    await health._asking
    assert health.tell() == "ok"


class Probed:
    """Counts its probes."""

    probes = 0

    async def probe(self):
        self.probes += 1


@in_virtual_time
async def test_an_answer_is_not_asked_for_again_within_ten_seconds():
    probed = Probed()
    health = BucketHealth(probed)
    for later, probes in ((0.0, 1), (9.8, 1), (0.2, 2)):
        await asyncio.sleep(later)
        health.tell()
        await asyncio.sleep(0.01)
        assert probed.probes == probes


async def test_callers_while_it_is_asked_share_one_question(bucket):
    health = BucketHealth(bucket)
    health.tell()
    asking = health._asking
    health.tell()
    assert health._asking is asking
    await asking


async def test_trouble_is_told_and_forgotten_when_it_is_over(bucket, s3, monkeypatch):
    monkeypatch.setattr("service.documents.bucket._FRESH_SECONDS", 0.0)
    health = BucketHealth(bucket)
    s3.delete_bucket(Bucket=bucket.name)
    health.tell()
    await health._asking
    assert health.tell() == "The bucket does not exist."
    s3.create_bucket(Bucket=bucket.name, CreateBucketConfiguration={"LocationConstraint": REGION})
    await health._asking
    health.tell()
    await health._asking
    assert health.tell() == "ok"
    await health._asking


@pytest.mark.usefixtures("s3_environment")
async def test_an_s3_that_hangs_does_not_hold_up_the_health_check(s3_environment, misbehaving):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", await misbehaving(b"", close=False))
    async with Bucket("documents", REGION) as bucket:
        health = BucketHealth(bucket)
        assert health.tell() == "not asked yet"
        await health._asking
        assert health.tell() == "S3 does not answer in time."
