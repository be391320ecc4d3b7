"""The machine is gone, no event is: a service is killed, and its files are removed.

JOURNAL_LOSSES says how many times.
"""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from tests.support.proof_table import add_row
from tests.support.s3_server import running_s3
from tests.support.trial import trial

ROUNDS = int(os.environ.get("JOURNAL_LOSSES", "2"))
REGION = "eu-west-1"


@pytest.mark.timeout(14400)
@pytest.mark.parametrize("fronts", ["1", pytest.param("2", marks=pytest.mark.slow)])
async def test_killed_and_without_its_files_a_service_delivers_what_it_answered(
    tmp_path: Path, fronts: str
) -> None:
    path = tmp_path / "outbox.db"
    with running_s3() as s3_url:
        settings = {
            "OUTBOX_JOURNAL": f"s3://{_new_bucket(s3_url)}/outbox",
            "AWS_S3_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": s3_url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "WEB_CONCURRENCY": fronts,
        }
        async with trial(path, **settings) as one:
            async with one.load.running():
                for _ in range(ROUNDS):
                    async with one.serving() as service:
                        await one.load.takes(30)
                        service.kill()
                        await service.ended()
                    _lose(path)
            async with one.serving():
                recovered = await one.drained()
        verdict = one.verdict("lost disks", recovered)
        print(verdict)
        tried = f"{ROUNDS} disks, {verdict.accepted:,} events"
        add_row(f"lost disks, WEB_CONCURRENCY={fronts}", tried, f"{verdict.lost} lost")
        verdict.check()


def _lose(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _new_bucket(s3_url: str) -> str:
    client = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=s3_url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="journal", CreateBucketConfiguration={"LocationConstraint": REGION})
    client.close()
    return "journal"
