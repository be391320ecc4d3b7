"""An S3 in memory on port 9090, with the buckets that S3Mock's own variable names."""

from __future__ import annotations

import os
import signal

import boto3
from moto.server import ThreadedMotoServer

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadedMotoServer("0.0.0.0", 9090).start()
client = boto3.client(
    "s3",
    endpoint_url="http://127.0.0.1:9090",
    region_name=os.environ["COM_ADOBE_TESTING_S3MOCK_STORE_REGION"],
    aws_access_key_id="local",
    aws_secret_access_key="local",
)
for bucket in os.environ["COM_ADOBE_TESTING_S3MOCK_STORE_INITIAL_BUCKETS"].split(","):
    client.create_bucket(
        Bucket=bucket,
        CreateBucketConfiguration={"LocationConstraint": client.meta.region_name},
    )
signal.pause()
