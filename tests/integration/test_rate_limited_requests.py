"""RATE_LIMIT_PER_USER counts each request once, whatever it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from service.bootstrap.service import run_service
from service.config.settings import Settings
from service.identity.user import User
from service.outbox.event import Event, Meta

ADA = "ada@example.com"
ACCEPTED_MS, LATER_MS = 1_795_559_419_447, 4_000_000_000_000


def limited(folder: Path) -> dict[str, str]:
    return {
        "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
        "INNGEST_DEV": "http://127.0.0.1:9",
        "RATE_LIMIT_PER_USER": "0.001",
    }


async def test_an_event_is_taken_back_by_one_request(tmp_path: Path) -> None:
    async with (
        run_service(Settings.load(limited(tmp_path))) as service,
        TestClient(TestServer(service.app)) as client,
    ):
        owner = User("dev", ADA).owner
        held = Event("x", "a/b", owner, ADA, ACCEPTED_MS, b"{}", Meta(due_at_ms=LATER_MS))
        await service.outbox.intake.append(held)
        await client.post("/auth/dev-login", json={"email": ADA})
        assert (await client.delete("/api/events/x")).status == 204
        assert (await client.delete("/api/events/x")).status == 429


@pytest.mark.parametrize("path", ["", "/names", "/events", "/audit"])
async def test_an_operator_s_page_is_one_request(tmp_path: Path, path: str) -> None:
    given = {**limited(tmp_path), "OPERATOR_EMAILS": ADA}
    async with (
        run_service(Settings.load(given)) as service,
        TestClient(TestServer(service.app)) as client,
    ):
        await client.post("/auth/dev-login", json={"email": ADA})
        assert (await client.get(f"/outbox{path}")).status == 200
        assert (await client.get(f"/outbox{path}")).status == 429
