"""Waits for an event end with their time and with their client, whatever the store does."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.web.events.followed_event import FollowPolicy
from inngest_outbox.web.server.server import HttpServer
from tests.support.followed_events import event, followed_events
from tests.support.raw_http import listening
from tests.support.service_client import service_client
from tests.support.storage import PATIENCE_SECONDS, eventually

POLICY = FollowPolicy(look_seconds=0.02, beat_seconds=3600, max_wait_seconds=3600)


@pytest.fixture
async def followed(tmp_path):
    async with followed_events(tmp_path, with_runs=False, policy=POLICY) as made:
        for one in ("e-1", "e-2"):
            await made.outbox.intake.append(event(one))
        yield made


@pytest.fixture
async def client(followed):
    """A client of the server that `serve` runs: pytest's own cancels the handlers of who leaves."""
    async with listening(HttpServer(followed.app, NullRecorder())) as port:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            yield http
        followed.follower.close()


async def are_followers(followed, count):
    await eventually(lambda: followed.follower.followers == count)


@pytest.mark.parametrize(("files", "most"), [(80, 20), (60, 16)])
async def test_one_user_has_a_quarter_of_the_open_files_as_streams_and_at_least_16(
    tmp_path, monkeypatch, files, most
):
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    async with service_client(tmp_path) as (service, own):
        await service.outbox.intake.append(event())
        await own.post("/auth/dev-login", json={"email": "u-1@example.com", "id": "u-1"})
        streams = [await own.get("/api/events/e-1/stream") for _ in range(most + 1)]
        assert [one.status for one in streams] == [200] * most + [503]
        for one in streams:
            one.close()


async def test_a_long_poll_ends_with_its_client(followed, client):
    waiting = asyncio.create_task(client.get("/api/events/e-1?wait=3600"))
    await are_followers(followed, 1)
    waiting.cancel()
    await are_followers(followed, 0)


async def test_a_stream_ends_with_its_client(followed, client):
    async with client.get("/api/events/e-1/stream") as answer:
        await answer.content.readuntil(b"\n\n")
        await are_followers(followed, 1)
    await are_followers(followed, 0)


async def test_who_stays_waits_on_when_another_client_leaves(followed, client):
    leaving = asyncio.create_task(client.get("/api/events/e-1?wait=3600"))
    staying = asyncio.create_task(client.get("/api/events/e-1?wait=3600"))
    await are_followers(followed, 2)
    leaving.cancel()
    await are_followers(followed, 1)
    assert not staying.done()
    followed.follower.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await staying).status == 200


async def test_a_long_poll_ends_in_time_while_the_store_hangs_and_another_waits(followed, client):
    followed.rows.hanging = True
    waiting = asyncio.create_task(client.get("/api/events/e-1?wait=3600"))
    await are_followers(followed, 1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await client.get("/api/events/e-2?wait=1")
    assert (await answer.json())["state"] == "pending"
    waiting.cancel()


async def test_everyone_who_waits_is_let_go_when_the_service_stops(followed, client):
    waiting = asyncio.create_task(client.get("/api/events/e-1?wait=3600"))
    streaming = await client.get("/api/events/e-2/stream")
    await are_followers(followed, 2)
    followed.follower.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await waiting).status == 200
        assert (await streaming.read()).count(b"\n\n") == 1  # nothing was told but the event
        assert (await client.get("/api/events/e-1/stream")).status == 503
