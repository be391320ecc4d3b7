"""The `outbox` script beside a running service, each a process of its own."""

from __future__ import annotations

from pathlib import Path

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import client, environment, running
from tests.support.outbox_script import outbox
from tests.support.storage import eventually


async def test_a_pause_holds_delivery_over_a_restart_until_it_is_resumed(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path}/outbox.db"
    settings = environment(url, inngest_api.url, HOST="127.0.0.2")

    async def delivery_is_paused() -> bool:
        _, ready = await poster.readiness(service.url)
        detail = ready["detail"]
        assert isinstance(detail, dict)
        return bool(detail["delivery"]["state"] == "paused")

    async with running("serve", environment=settings) as service, client() as poster:
        assert service.url.startswith("http://127.0.0.2:")
        for words in (
            f"events go to +{inngest_api.url}",
            f"outbox +{url}",
            "storage +bucket documents",
        ):
            await service.said(words)
        await service.said(f"sign in +{service.url}/auth/dev-login")
        await service.said(f"pages +{service.url}/, {service.url}/docs, {service.url}/outbox")
        await poster.sign_in(service.url)
        await outbox(url, "pause")
        await eventually(delivery_is_paused)
        assert [await poster.post(service.url) for _ in range(3)] == [200] * 3
        stats = await outbox(url, "stats")
        assert stats["pending"] + stats["delivering"] == 3
        assert await service.stop() == 0
    async with running("serve", environment=settings) as service, client() as poster:
        await poster.sign_in(service.url)
        assert await delivery_is_paused()
        assert await poster.post(service.url) == 200
        assert (await outbox(url, "stats"))["delivery"]["state"] == "paused"
        assert inngest_api.ledger.stats.arrivals == 0
        await outbox(url, "resume")

        async def all_delivered() -> bool:
            return inngest_api.ledger.stats.ids == 4

        await eventually(all_delivered)
        assert await service.stop() == 0
    assert "operator_action" in "".join(service.lines)
