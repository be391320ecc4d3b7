"""The fake Inngest over a real socket; its answers are held beside a real one's elsewhere."""

from __future__ import annotations

import io
import json
import sqlite3
from typing import Any

import aiohttp
import pytest

from service.dev.fake_inngest.server import FakeInngest, FakeOptions

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


async def test_a_self_hosted_server_without_keys_answers_503(http):
    async with FakeInngest(options=FakeOptions(keys_required=True)) as api:
        status, answer = await post(http, api, [OK])
    assert status == 503
    assert "event keys are required" in answer["error"]


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
