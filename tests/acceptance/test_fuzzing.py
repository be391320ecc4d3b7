"""The running service with a file of event types, fuzzed from its own description.

It causes no fault of the service and gets no undescribed answer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.examples import ROOT
from tests.support.fleet import environment, running

EVENT_TYPES = ROOT / "examples" / "event-types" / "event-types.yaml"
KEY = "a-key-of-the-tests-only"
ANSWER_SECONDS = 90  # `?wait=` may ask for 60
# That a schema can't say how many bytes of UTF-8 a name has is no fault of the service. In place of
# `not_a_server_error`, which knows no disk that hangs, stands the check of `fuzz_checks`.
LEFT_OUT = "positive_data_acceptance,not_a_server_error"


@pytest.mark.slow
async def test_every_answer_is_described_and_none_is_a_fault_of_ours(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    path = tmp_path / "outbox.db"
    settings = environment(
        f"sqlite:///{path}",
        inngest_api.url,
        OPERATOR_EMAILS="kim@example.com",
        EVENT_TYPES_FILE=str(EVENT_TYPES),
        OUTBOX_EVENT_KEYS=f"fuzz:{KEY}",
    )
    async with running("serve", environment=settings) as service:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{service.url}/auth/dev-login", json={"email": "kim@example.com"}) as answer,
        ):
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        fuzzing = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{service.url}/openapi.json",
            "--header",
            f"Cookie: {cookie}",
            "--header",
            f"Authorization: Bearer {KEY}",
            "--mode=all",
            "--max-examples=40",
            "--checks=all",
            f"--exclude-checks={LEFT_OUT}",
            "--generation-database=none",
            f"--request-timeout={ANSWER_SECONDS}",
            f"--max-response-time={ANSWER_SECONDS}",
            "--no-color",
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{ROOT}/service",
                "SCHEMATHESIS_HOOKS": "tests.support.fuzz_checks",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await fuzzing.communicate()
        assert fuzzing.returncode == 0, out.decode()
