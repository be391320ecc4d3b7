"""The fake Inngest answers over a real socket what facts about the Event API say."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import inngest
import pytest
from inngest._internal.errors import SendEventsError

from service.dev.fake_inngest.event_api import SEED_HEADER
from service.dev.fake_inngest.server import FakeInngest, FakeOptions

TS_MS = 1_795_559_419_447
OK = {"name": "documents/aws.index", "data": {"documentName": "example"}}
BAD = {"name": ""}
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


async def test_the_same_seed_and_order_give_the_same_ids(inngest_api, http):
    seed = {SEED_HEADER: f"{TS_MS},AAECAwQFBgcICQ=="}
    _, first = await post(http, inngest_api, [OK, OK], **seed)
    _, again = await post(http, inngest_api, [OK, OK], **seed)
    _, unseeded = await post(http, inngest_api, [OK, OK])
    assert first == again != unseeded
    assert inngest_api.ledger.stats.arrivals == 6
    assert inngest_api.runs.count == 4


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("no id", {"id": None}),
    ("an empty id", {"id": ""}),
    ("a ts of 0", {"ts": 0}),
    ("a null ts", {"ts": None}),
    ("the first ts", {"ts": 315_532_800_000}),
    ("the last ts", {"ts": 4_102_444_800_000}),
    ("null data", {"data": None}),
    ("a user", {"user": {"id": "u-1"}}),
    ("a null user", {"user": None}),
    ("a version", {"v": "1"}),
    ("an unknown field", {"more": [1]}),
    ("a name in capitals", {"NAME": "documents/aws.index", "name": None}),
    ("a large number in an unknown field", {"more": 10**400}),
    ("five sessions", {"meta": {"sessions": {str(n): n for n in range(5)}}}),
    ("an inherited session", {"meta": {"propagated_sessions": {"a": "b"}}}),
    ("a long name", {"name": "n" * 1000}),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("no name", {"name": None}),
    ("an empty name", {"name": ""}),
    ("a name that is a number", {"name": 1}),
    ("a reserved name", {"name": "inngest/function.failed"}),
    ("a reserved name in capitals", {"name": "InnGest/x"}),
    ("an id that is a number", {"id": 7}),
    ("a ts in seconds", {"ts": TS_MS // 1000}),
    ("a ts after 2100", {"ts": 4_102_444_800_001}),
    ("a negative ts", {"ts": -1}),
    ("a ts as text", {"ts": str(TS_MS)}),
    ("a ts as a float", {"ts": 1.5e12}),
    ("a huge ts", {"ts": 10**30}),
    ("data as a list", {"data": []}),
    ("data as text", {"data": "x"}),
    ("a user as text", {"user": "u-1"}),
    ("a version as a number", {"v": 1}),
    ("a number out of range", {"data": {"x": 10**400}}),
    ("a meta that is a list", {"meta": []}),
    ("six sessions", {"meta": {"sessions": {str(n): n for n in range(6)}}}),
    ("a session that is a flag", {"meta": {"Sessions": {"a": True}}}),
    ("an empty session", {"meta": {"sessions": {"a": ""}}}),
    ("an inherited session that is null", {"meta": {"propagated_sessions": {"a": None}}}),
    ("sessions that are a list", {"meta": {"sessions": [1]}}),
    ("more than 3 MiB", {"data": {"x": "x" * 3_145_728}}),
]


@pytest.mark.parametrize("change", [pytest.param(c, id=name) for name, c in GOOD])
async def test_an_event_may_have(inngest_api, http, change):
    status, answer = await post(http, inngest_api, [{**OK, **change}])
    assert (status, len(answer["ids"])) == (200, 1)
    assert inngest_api.ledger.arrivals == 1


@pytest.mark.parametrize("change", [pytest.param(c, id=name) for name, c in REFUSED])
async def test_an_event_is_refused_for(inngest_api, http, change):
    status, answer = await post(http, inngest_api, [{**OK, **change}])
    assert (status, answer["status"], answer["ids"]) == (400, 400, [""])
    assert answer["error"]
    assert inngest_api.ledger.arrivals == 0


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b"", [""]),
        (b"[]", [""]),
        (b" \n[ ]", [""]),
        (b"[", [""]),
        (b"[}", [""]),
    ],
)
async def test_nothing_is_a_success_with_an_empty_id(inngest_api, http, body, ids):
    assert await post(http, inngest_api, body) == (200, {"ids": ids, "status": 200})


async def test_one_event_may_come_without_an_array(inngest_api, http):
    status, answer = await post(http, inngest_api, {**OK, "id": "alone"})
    assert (status, len(answer["ids"])) == (200, 1)
    assert inngest_api.ledger.times("alone") == 1


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b'"text"',
        b"[1]",
        b"[" * 100_000,
        b'[{"name":"a","data":{"x":NaN}}]',
        pytest.param(gzip.compress(json.dumps([OK]).encode()), id="gzip"),
    ],
)
async def test_a_body_that_is_not_events_is_refused(inngest_api, http, body):
    status, answer = await post(http, inngest_api, body)
    assert (status, answer["ids"]) == (400, [""])
    assert inngest_api.ledger.arrivals == 0


async def test_a_gzip_body_is_not_understood_although_it_is_declared(inngest_api, http):
    body = gzip.compress(json.dumps([OK]).encode())
    status, _ = await post(http, inngest_api, body, **{"Content-Encoding": "gzip"})
    assert status == 400


async def test_events_before_a_bad_one_are_accepted_and_those_after_it_are_not(inngest_api, http):
    events = [{**OK, "id": "1"}, {**OK, "id": "2"}, BAD, {**OK, "id": "4"}]
    status, answer = await post(http, inngest_api, events)
    assert (status, answer["status"], len(answer["ids"])) == (400, 400, 2)
    assert list(inngest_api.ledger.ids) == ["1", "2"]


@pytest.mark.parametrize("tail", [b",", b',{"na', b" {}]", b",nope]", b",]"])
async def test_events_before_broken_json_are_accepted(inngest_api, http, tail):
    status, answer = await post(http, inngest_api, b'[{"name":"a"} , {"name":"b"}' + tail)
    assert (status, len(answer["ids"])) == (400, 2)
    assert inngest_api.ledger.arrivals == 2


@pytest.mark.parametrize("tail", [b"", b"}", b"] and more"])
async def test_an_array_ends_with_the_body_and_at_a_brace(inngest_api, http, tail):
    status, answer = await post(http, inngest_api, b'[{"name":"a"} , {"name":"b"}' + tail)
    assert (status, len(answer["ids"])) == (200, 2)


@pytest.mark.parametrize("value", [b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"'])
async def test_what_is_not_unicode_is_replaced(inngest_api, http, value):
    status, _ = await post(http, inngest_api, b'[{"name":"a","data":{"x":' + value + b"}}]")
    [arrival] = inngest_api.ledger.kept()
    assert (status, set(json.loads(arrival.event)["data"]["x"])) == (200, {"\ufffd"})


async def test_the_5001st_event_of_a_request_is_refused(inngest_api, http):
    status, answer = await post(http, inngest_api, [{"name": "a"}] * 5_001)
    assert (status, len(answer["ids"])) == (400, 5_000)
    assert inngest_api.ledger.arrivals == 5_000


async def test_a_body_of_20_mib_is_accepted(inngest_api, http):
    events = [{"name": "a", "data": {"x": "x" * 2_097_152}}] * 10
    status, answer = await post(http, inngest_api, events)
    assert (status, len(answer["ids"])) == (200, 10)


async def test_the_internal_data_key_is_stripped(inngest_api, http):
    await post(http, inngest_api, [{**OK, "data": {"a": 1, "_inngest": {"x": 1}}}])
    [arrival] = inngest_api.ledger.kept()
    assert json.loads(arrival.event) == {"name": OK["name"], "data": {"a": 1}}


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
        ids = await client.send([inngest.Event(name="a", data={"x": 1}, id="sdk-1", ts=TS_MS)])
    [arrival] = inngest_api.ledger.kept()
    assert ids == [arrival.server_id]
    assert (arrival.id, arrival.name, arrival.ts) == ("sdk-1", "a", TS_MS)


async def test_the_inngest_client_sees_that_its_key_is_unknown():
    async with FakeInngest(options=FakeOptions(keys={"other"})) as api, sdk(api) as client:
        with pytest.raises(SendEventsError, match="Event key not found"):
            await client.send(inngest.Event(name="a"))
