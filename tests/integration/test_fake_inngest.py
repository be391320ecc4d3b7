"""The fake Inngest over a real socket; its answers are held beside a real one's elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import inngest
import pytest
from inngest._internal.errors import SendEventsError

from service.dev.fake_inngest.server import FakeInngest, FakeOptions

OK = {"name": "documents/aws.index", "data": {"documentName": "example"}}
ULID_CHARS = 26


async def post(
    http: aiohttp.ClientSession, api: FakeInngest, events: object, **headers: str
) -> tuple[int, dict[str, Any]]:
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    async with http.post(
        f"{api.url}/e/any-key", data=io.BytesIO(body), headers=headers
    ) as response:
        return response.status, await response.json(content_type=None)


async def test_a_good_batch_is_answered_with_a_server_id_for_each_event(inngest_api, http):
    events = [{**OK, "id": "first"}, {**OK, "id": "second"}]
    async with http.post(f"{inngest_api.url}/e/key", json=events) as response:
        answer = await response.json(content_type=None)
        assert response.content_type == "text/plain"
        assert "Date" in response.headers
    assert response.status == answer["status"] == 200
    assert [len(server_id) for server_id in answer["ids"]] == [ULID_CHARS, ULID_CHARS]
    assert answer["ids"] == sorted(set(answer["ids"]))
    assert list(inngest_api.ledger.ids) == ["first", "second"]


async def test_an_unknown_key_is_refused_when_keys_are_configured(http):
    async with FakeInngest(options=FakeOptions(keys={"good"})) as api:
        status, answer = await post(http, api, [OK])
        assert (status, answer) == (401, {"error": "Event key not found", "status": 401})
        async with http.post(f"{api.url}/e/good", json=[OK]) as response:
            assert response.status == 200
        assert [request.key for request in api.ledger.requests] == ["any-key", "good"]
        assert api.ledger.arrivals == 1


async def test_a_self_hosted_server_without_keys_answers_503(http):
    async with FakeInngest(options=FakeOptions(keys_required=True)) as api:
        status, answer = await post(http, api, [OK])
    assert status == 503
    assert "event keys are required" in answer["error"]


async def test_a_repeated_id_arrives_again_but_runs_once(inngest_api, http):
    _, first = await post(http, inngest_api, [{**OK, "id": "one"}])
    _, again = await post(http, inngest_api, [{**OK, "id": "one"}])
    assert first["ids"] != again["ids"]
    assert inngest_api.ledger.times("one") == 2
    assert inngest_api.runs.count == 1


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
async def sdk(api: FakeInngest) -> AsyncIterator[inngest.Inngest]:
    # The SDK has no close(), so its two HTTP clients are closed behind its back.
    client = inngest.Inngest(
        app_id="test", event_api_base_url=api.url, event_key="key", is_production=True
    )
    try:
        yield client
    finally:
        await client._http_client._http_client.aclose()
        client._http_client._http_client_sync.close()


async def test_the_inngest_client_sends_to_it(inngest_api):
    async with sdk(inngest_api) as client:
        ids = await client.send(
            [inngest.Event(name="a", data={"x": 1}, id="sdk-1", ts=1_795_559_419_447)]
        )
    [arrival] = inngest_api.ledger.kept()
    assert ids == [arrival.server_id]
    assert (arrival.id, arrival.name, arrival.ts) == ("sdk-1", "a", 1_795_559_419_447)


async def test_the_inngest_client_sees_that_its_key_is_unknown():
    async with FakeInngest(options=FakeOptions(keys={"other"})) as api, sdk(api) as client:
        with pytest.raises(SendEventsError, match="Event key not found"):
            await client.send(inngest.Event(name="a"))
