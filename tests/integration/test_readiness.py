"""Alive, ready and why not: what /healthz and /readyz of a whole service say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from inngest_outbox.bootstrap.store_part import run_store_process
from inngest_outbox.bootstrap.web_part import run_front_process
from inngest_outbox.config.settings import Settings
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.server import serve_link
from inngest_outbox.relay.relay import Relay
from inngest_outbox.web.events.follower import EventFollower
from tests.support.remote_storage import unix_socket
from tests.support.service_client import Client, service_client
from tests.support.storage import event, eventually

BUCKET = {"AWS_S3_REGION": "eu-west-1", "AWS_S3_BUCKET": "documents"}


def front_settings(**given: str) -> Settings:
    return Settings.load(
        {"SESSION_SECRET": "s" * 32, "INNGEST_DEV": "http://127.0.0.1:9", **BUCKET, **given}
    )


@contextlib.asynccontextmanager
async def front_client(settings: Settings, path: Path) -> AsyncIterator[Client]:
    """A client of a front process whose store process listens at `path`."""
    async with (
        run_front_process(settings, str(path)) as (app, _),
        TestClient(TestServer(app)) as client,
    ):
        yield client


async def readiness(client: Client) -> tuple[int, dict[str, Any]]:
    answer = await client.get("/readyz")
    return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, "AWS_S3_REGION, AWS_S3_BUCKET"),
        ({"AWS_S3_BUCKET": "documents"}, "AWS_S3_REGION"),
        ({"AWS_S3_REGION": "eu-west-1", "OUTBOX_EVENT_KEYS": "cron:x"}, "AWS_S3_BUCKET"),
    ],
)
async def test_without_its_storage_a_service_is_alive_and_unready_and_names_what_is_missing(
    tmp_path: Path, environ: dict[str, str], missing: str
) -> None:
    types = tmp_path / "types.yaml"  # one more, which needs none
    types.write_text("types: [{name: a/b, path: /api/a, body: {type: object}}]")
    given = {**environ, "EVENT_TYPES_FILE": str(types)}
    async with service_client(tmp_path, **given) as (_, client):
        status, told = await readiness(client)
        assert (status, told["status"]) == (503, "unready")
        assert told["faults"] == [f"not configured: {missing}"]
        answer = await client.post("/api/route", json={"documentName": "a"})
        refused = await answer.json()
        assert (answer.status, refused["code"]) == (503, "storage_not_configured")
        assert refused["error"] == f"Not configured: {missing}."
        for headers, allowed in (({}, 200), ({"Via": "1.1 proxy"}, 401)):
            figures = await client.get("/metrics", headers=headers)
            assert figures.status == allowed
            if allowed == 200:
                assert figures.headers["Content-Type"].startswith("text/plain; version=")
        alive = await client.get("/healthz")
        assert (alive.status, await alive.json()) == (200, {"status": "ok"})


async def test_a_service_for_machines_alone_needs_no_storage(tmp_path: Path) -> None:
    async with service_client(tmp_path, OUTBOX_EVENT_KEYS="cron:x") as (_, client):
        assert (await readiness(client))[0] == 200


async def test_an_outage_of_inngest_makes_no_service_unready(tmp_path: Path) -> None:
    async with service_client(tmp_path, **BUCKET) as (service, client):
        await service.outbox.intake.append(event())

        async def backs_off() -> bool:
            _, told = await readiness(client)
            return bool(told["detail"]["delivery"]["state"] == "backing_off")

        await eventually(backs_off)
        status, told = await readiness(client)
        assert (status, told["status"], told["faults"]) == (200, "ready", [])
        assert told["detail"]["delivery"]["reason"]
        assert told["detail"]["undelivered"] == 1
        through_a_proxy = await client.get("/readyz", headers={"Via": "1.1 proxy"})
        seen = (await through_a_proxy.json())["detail"]
        assert seen["undelivered"] == 1
        delivery = seen["delivery"]
        assert delivery["state"] == "backing_off"
        assert "reason" not in delivery  # it may quote an event


@pytest.mark.faulty
async def test_a_service_whose_relay_ends_again_and_again_is_unready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relay, "run", _ends)
    async with service_client(tmp_path, **BUCKET) as (_, client):
        await is_at_fault(client, "relay")


async def _ends(_: object) -> None:
    raise RuntimeError


async def is_at_fault(client: Client, task: str) -> None:
    async def unready() -> list[str]:
        status, told = await readiness(client)
        return told["faults"] if status == 503 else []

    [fault] = await eventually(unready)
    assert fault.startswith(f"{task} ")


@pytest.mark.faulty
async def test_a_front_process_is_unready_for_a_relay_that_ends_again_and_again(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relay, "run", _ends)
    settings = front_settings(OUTBOX_URL=f"sqlite:///{short_path / 'outbox.db'}")
    with unix_socket(short_path / "store") as listening:
        async with (
            run_store_process(settings, listening),
            front_client(settings, short_path / "store") as client,
        ):
            await is_at_fault(client, "relay")


@pytest.mark.faulty
async def test_a_front_process_is_unready_for_a_task_of_its_own(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventFollower, "look", _ends)
    with unix_socket(short_path / "store") as listening:
        async with (
            serve_link(listening, [], Status),
            front_client(front_settings(), short_path / "store") as client,
        ):
            await is_at_fault(client, "following")


async def test_a_front_process_is_unready_for_the_faults_of_its_store_process(
    short_path: Path,
) -> None:
    failure, fault = "The disk is full.", "relay keeps failing"
    with unix_socket(short_path / "store") as listening:
        async with (
            serve_link(listening, [], lambda: Status(failure, faults=(fault,))),
            front_client(front_settings(), short_path / "store") as client,
        ):
            status, told = await readiness(client)

            async def figures() -> str:
                return await (await client.get("/metrics")).text()

            lag = re.compile(r"\noutbox_event_loop_lag_seconds \S*[1-9]")
            await eventually(figures, lambda said: lag.search(said) is not None)
    assert (status, told["faults"]) == (503, [failure, fault])
