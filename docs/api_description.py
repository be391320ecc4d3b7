"""The API's description of a service that has every endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from inngest_outbox.bootstrap.service import run_service
from inngest_outbox.config.settings import Settings


def whole_service(folder: Path) -> Settings:
    """Settings under which every endpoint is there; the outbox is in `folder`."""
    return Settings.load(
        {
            "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
            "INNGEST_DEV": "http://127.0.0.1:9",
            "OIDC_ISSUER": "https://identity.example.com",
            "OIDC_CLIENT_ID": "outbox",
            "OUTBOX_EVENT_KEYS": "cron:0123456789abcdef",
        }
    )


async def description(folder: Path) -> dict[str, Any]:
    """OpenAPI 3.1, as the running service answers it."""
    async with (
        run_service(whole_service(folder)) as service,
        TestClient(TestServer(service.app)) as client,
        client.get("/openapi.json") as answer,
    ):
        return dict(await answer.json())
