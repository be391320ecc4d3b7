"""The fake Inngest over a real socket, as a process, and its REST API by its own clock."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.event_api import SEED_HEADER
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.batches import EVENTS
from tests.support.storage import PATIENCE_SECONDS, eventually

OK = {"name": "documents/aws.index", "data": {"documentName": "example"}}


async def post(
    http: aiohttp.ClientSession, api: FakeInngest, events: object, **headers: str
) -> tuple[int, dict[str, Any]]:
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    async with http.post(
        f"{api.url}/e/any-key", data=io.BytesIO(body), headers=headers
    ) as response:
        return response.status, await response.json(content_type=None)


async def test_an_unknown_key_is_refused_when_keys_are_configured(http):
    async with FakeInngest(options=FakeOptions(keys={"good"})) as api:
        status, answer = await post(http, api, [OK])
        assert (status, answer) == (401, {"error": "Event key not found", "status": 401})
        async with http.post(f"{api.url}/e/good", json=[OK]) as response:
            assert response.status == 200
        assert [request.key for request in api.ledger.requests] == ["any-key", "good"]
        assert api.ledger.arrivals == 1


async def test_a_sink_answers_an_id_for_each_event_and_keeps_none(http):
    async with FakeInngest(options=FakeOptions(sink=True)) as api:
        status, answer = await post(http, api, [OK] * 3)
        assert (status, len(set(answer["ids"]))) == (200, 3)
        assert (await post(http, api, b"[{"))[0] == 400
        assert (await post(http, api, b""))[1]["ids"] == [""]
        assert (api.ledger.arrivals, api.ledger.kept()) == (3, [])


async def test_one_that_finds_its_port_taken_lets_go_of_its_store(inngest_api):
    other = FakeInngest(port=int(inngest_api.url.rpartition(":")[2]))
    with pytest.raises(OSError, match="in use"):
        async with other:
            pass
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        _ = other.store.event_count


async def test_a_restart_serves_the_same_address_with_the_same_ledger(http):
    async with FakeInngest() as api:
        await post(http, api, [{**OK, "id": "before"}])
        await api.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(http, api, [OK])
        await api.start()
        await post(http, api, [{**OK, "id": "after"}])
        assert list(api.ledger.ids) == ["before", "after"]


@contextlib.asynccontextmanager
async def fake_process(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inngest_outbox.dev.fake_inngest", "--port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)).decode()
        yield process, line.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_as_a_process_until_it_is_told_to_stop(http, number):
    async with fake_process("--keys", "good,better") as (process, url):
        async with http.post(f"{url}/e/better", json=EVENTS) as response:
            assert response.status == 200
        async with http.post(f"{url}/e/other", json=EVENTS) as response:
            assert response.status == 401
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0


async def test_a_port_that_is_taken_ends_the_process_with_a_sentence(inngest_api):
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "inngest_outbox.dev.fake_inngest",
            "--port",
            inngest_api.url.split(":")[-1],
        ),
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 1
    assert b"can't start" in words
    assert b"Traceback" not in words


async def post_seeded(
    http: aiohttp.ClientSession, api: FakeInngest, count: int, **extra: Any
) -> list[str]:
    events = [{"name": "a", "id": f"e{n}", "data": {"n": n}, **extra} for n in range(count)]
    seed = {SEED_HEADER: "1795559419447,AAECAwQFBgcICQ=="}
    async with http.post(f"{api.url}/e/key", data=json.dumps(events), headers=seed) as response:
        ids: list[str] = (await response.json(content_type=None))["ids"]
        return ids


async def get(
    http: aiohttp.ClientSession, api: FakeInngest, path: str
) -> tuple[int, dict[str, Any]]:
    async with http.get(f"{api.url}/v1/{path}") as response:
        return response.status, await response.json(content_type=None)


async def test_answers_about_one_event_are_repeated_until_their_time_is_over(http):
    async with FakeInngest() as api:
        [given] = await post_seeded(http, api, 1)
        for path, found, seconds in (
            (f"events/{given}", dict, 5),
            (f"events/{given}/runs", list, 15),
        ):
            assert isinstance((await get(http, api, path))[1]["data"], found)
            api.store.clear()
            assert (await get(http, api, path))[1]["data"]
            assert not (await get(http, api, f"{path}?n=1"))[1]["data"]
            api.clock.move(seconds + 1)
            assert not (await get(http, api, path))[1]["data"]
            await post_seeded(http, api, 1)


async def test_a_slow_store_lags_behind_the_answers_and_a_stop_loses_the_rest(http, tmp_path):
    options = FakeOptions(store_rate=40, store_path=tmp_path / "events.db")
    async with FakeInngest(options=options) as api:
        given = await post_seeded(http, api, 400)
        assert len(given) == api.ledger.arrivals == 400
        await eventually(lambda: api.store.event_count >= 10)
        await api.close()
        stored, lost = api.store.event_count, api.storing.lost
        assert stored + lost == 400
        assert lost > 0
        await api.start()
        assert (await get(http, api, f"events/{given[0]}"))[1]["data"]["id"] == "e0"
        assert (await get(http, api, f"events/{given[-1]}"))[1]["status"] == 404
    async with FakeInngest(options=FakeOptions(store_path=tmp_path / "events.db")) as api:
        assert (api.store.event_count, api.runs.count) == (stored, stored)
