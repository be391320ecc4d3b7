"""The API's description of a whole service, as JSON: what the TypeScript client is made from.

`python -m tests.support.api_description` writes it there.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec
from aiohttp.test_utils import TestClient, TestServer

from service.bootstrap.service import run_service
from service.config.settings import Settings

COMMITTED = Path(__file__).parents[2] / "clients" / "typescript" / "openapi.json"


def whole_service(folder: Path) -> Settings:
    """Settings under which every endpoint is there."""
    return Settings.load(
        {
            "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
            "INNGEST_DEV": "http://127.0.0.1:9",
            "OIDC_ISSUER": "https://identity.example.com",
            "OIDC_CLIENT_ID": "outbox",
            "OUTBOX_EVENT_KEYS": "cron:0123456789abcdef",
        }
    )


async def description(folder: Path) -> str:
    """The description, one line a field."""
    async with (
        run_service(whole_service(folder)) as service,
        TestClient(TestServer(service.app)) as client,
        client.get("/openapi.json") as answer,
    ):
        return msgspec.json.format(await answer.read(), indent=1).decode() + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        COMMITTED.write_text(asyncio.run(description(Path(made))), encoding="utf-8")
        sys.stdout.write(f"{COMMITTED}\n")
