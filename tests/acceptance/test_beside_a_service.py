"""What a service says and does with a faulty configuration, a refused key and a wait."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from service.dev.fake_inngest.faults import ScriptedAnswer
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.fleet import client, environment, running
from tests.support.outbox_command import outbox_json
from tests.support.service_here import service_here
from tests.support.storage import eventually


async def test_a_faulty_configuration_is_told_whole_and_exits_with_2(tmp_path: Path) -> None:
    faults = {"PORT": "x", "OUTBOX_SENDERS": "none", "APP_ENV": "prod", "OUTBOX_RETENTION": "soon"}
    settings = environment(f"sqlite:///{tmp_path}/outbox.db", "http://127.0.0.1:9", **faults)
    async with running("serve", environment=settings, ready=":") as service:
        assert await service.ended() == 2
    said = "".join(service.lines)
    assert [variable for variable in faults if variable not in said] == []
    assert "Traceback" not in said
    assert not (tmp_path / "outbox.db").exists()


async def test_an_event_goes_under_the_second_key_when_inngest_refuses_the_first(
    tmp_path: Path,
) -> None:
    async with FakeInngest(options=FakeOptions(keys=["second-key"])) as inngest:
        settings = environment(
            f"sqlite:///{tmp_path}/outbox.db",
            inngest.url,
            INNGEST_EVENT_KEY="first-key",
            INNGEST_EVENT_KEY_FALLBACK="second-key",
        )
        async with service_here(settings) as service, client() as poster:
            await poster.sign_in(service.url)
            assert await poster.post(service.url) == 200
            await inngest.ledger.wait_for_id(poster.accepted[0])


async def test_resume_now_ends_a_wait_that_inngest_asked_for(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path}/outbox.db"
    inngest_api.faults.add(ScriptedAnswer(503, retry_after=300), times=1)

    async def delivery() -> dict[str, Any]:
        told: dict[str, Any] = (await outbox_json(url, "stats"))["delivery"]
        return told

    async with (
        service_here(environment(url, inngest_api.url)) as service,
        client() as poster,
    ):
        await poster.sign_in(service.url)
        assert await poster.post(service.url) == 200
        told = await eventually(delivery, lambda seen: seen["state"] == "backing_off")
        tried_again_ms = (time.time() + told["reopensInSeconds"]) * 1000
        await outbox_json(url, "resume", "--now")
        arrival = await inngest_api.ledger.wait_for_id(poster.accepted[0])
        assert arrival is not None
        assert arrival.received_at_ms < tried_again_ms - 1000
