"""RATE_LIMIT_PER_USER counts each request once, whatever it does."""

from __future__ import annotations

from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer

from service.bootstrap.service import run_service
from service.config.settings import Settings
from service.identity.user import User
from service.outbox.event import Event, Meta

ADA = "ada@example.com"
ACCEPTED_MS, LATER_MS = 1_795_559_419_447, 4_000_000_000_000


async def test_an_event_is_taken_back_by_one_request(tmp_path: Path) -> None:
    given = {
        "OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}",
        "INNGEST_DEV": "http://127.0.0.1:9",
        "RATE_LIMIT_PER_USER": "0.001",
    }
    async with (
        run_service(Settings.load(given)) as service,
        TestClient(TestServer(service.app)) as client,
    ):
        owner = User("dev", ADA).owner
        held = Event("x", "a/b", owner, ADA, ACCEPTED_MS, b"{}", Meta(due_at_ms=LATER_MS))
        await service.outbox.intake.append(held)
        await client.post("/auth/dev-login", json={"email": ADA})
        assert (await client.delete("/api/events/x")).status == 204
        assert (await client.delete("/api/events/x")).status == 429
