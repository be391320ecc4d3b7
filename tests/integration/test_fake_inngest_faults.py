"""The fake Inngest misbehaves as it is told, keeps the events it should, and shows them."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.faults import (
    Cut,
    Drip,
    Hang,
    Match,
    Partial,
    Poison,
    Reset,
    ScriptedAnswer,
    Slow,
    TooLarge,
)
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.batches import EVENTS, POISONED, post


async def ids_of(http, api, events=EVENTS):
    return json.loads((await post(http, api, events))[1])["ids"]


async def test_a_scripted_answer_replaces_so_many_true_ones(inngest_api, http):
    inngest_api.faults.add(ScriptedAnswer(429, retry_after=7), times=2)
    for _ in range(2):
        status, text, headers = await post(http, inngest_api)
        assert (status, headers["Retry-After"]) == (429, "7")
        assert json.loads(text) == {"error": "Too Many Requests", "status": 429}
    assert inngest_api.ledger.arrivals == 0
    assert (await post(http, inngest_api))[0] == 200
    assert [request.fault for request in inngest_api.ledger.requests] == ["answer", "answer", None]


@pytest.mark.parametrize(
    "answer",
    [
        ScriptedAnswer(502, "<h1>Bad gateway</h1>", "text/html"),
        ScriptedAnswer(200, "<html>", "text/html"),
        ScriptedAnswer(200, '{"ids":["01'),
        ScriptedAnswer(200, ""),
        ScriptedAnswer(308, "", headers={"Location": "https://elsewhere.invalid/"}),
    ],
)
async def test_an_answer_may_be_anything(inngest_api, http, answer):
    inngest_api.faults.add(answer)
    status, text, headers = await post(http, inngest_api)
    assert (status, text) == (answer.status, answer.body)
    assert headers["Content-Type"].startswith(answer.content_type)
    assert headers.get("Location") == answer.headers.get("Location")


@pytest.mark.parametrize(("when", "stored"), [("unread", 0), ("read", 0), ("stored", 3)])
async def test_a_reset_loses_the_answer_but_only_a_late_one_keeps_the_events(
    inngest_api, when, stored
):
    inngest_api.faults.add(Reset(when))
    reader, writer = await asyncio.open_connection(*inngest_api.url[7:].split(":"))
    body = json.dumps(EVENTS).encode()
    head = f"POST /e/key HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert inngest_api.ledger.arrivals == stored
    assert inngest_api.ledger.request_count == 1


@pytest.mark.parametrize(("store", "stored"), [(False, 0), (True, 3)])
async def test_a_hanging_request_is_reset_when_the_faults_are_cleared(
    inngest_api, http, store, stored
):
    inngest_api.faults.add(Hang(store=store), times=None)
    hanging = asyncio.create_task(post(http, inngest_api))
    await inngest_api.ledger.wait_for_requests(1)
    inngest_api.faults.clear()
    with pytest.raises(aiohttp.ClientConnectionError):
        await hanging
    assert inngest_api.ledger.arrivals == stored
    assert (await post(http, inngest_api))[0] == 200


async def test_closing_does_not_wait_for_a_hanging_request(http):
    async with FakeInngest() as api:
        api.faults.add(Hang())
        hanging = asyncio.create_task(post(http, api))
        await api.ledger.wait_for_requests(1)
        await api.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await hanging


@pytest.mark.parametrize("fault", [Slow(0.01), Drip(0.0001)])
async def test_a_slow_and_a_dripping_answer_are_the_true_one(inngest_api, http, fault):
    inngest_api.faults.add(fault)
    ids = await ids_of(http, inngest_api)
    assert ids == [arrival.server_id for arrival in inngest_api.ledger.kept()]
    assert len(ids) == 3


async def test_a_cut_answer_breaks_off_after_its_events_were_stored(inngest_api, http):
    inngest_api.faults.add(Cut(10))
    with pytest.raises(aiohttp.ClientError):
        await post(http, inngest_api)
    assert inngest_api.ledger.arrivals == 3


@pytest.mark.parametrize(
    ("fault", "blanks", "stored"),
    [
        (Partial(1), 0, 2),
        (Partial(1, blank=True), 1, 2),
        (Partial(9, blank=True), 3, 0),
        (Partial(9), 1, 0),
    ],
)
async def test_events_left_out_of_a_success_are_not_stored(
    inngest_api, http, fault, blanks, stored
):
    inngest_api.faults.add(fault)
    ids = await ids_of(http, inngest_api)
    kept = [arrival.server_id for arrival in inngest_api.ledger.kept()]
    assert ids == kept + [""] * blanks
    assert len(kept) == stored


@pytest.mark.parametrize("limit", [TooLarge(max_events=2), TooLarge(max_bytes=150)])
async def test_only_a_request_over_the_limit_is_too_large(inngest_api, http, limit):
    inngest_api.faults.add(limit, times=None)
    assert (await post(http, inngest_api))[0] == 413
    assert (await post(http, inngest_api, EVENTS[:2]))[0] == 200
    assert inngest_api.ledger.arrivals == 2


async def test_a_poisoned_event_stops_the_reading_with_words(inngest_api, http):
    inngest_api.faults.add(Poison("no such bucket"), times=None)
    status, text, _ = await post(http, inngest_api, [EVENTS[0], POISONED, EVENTS[1]])
    answer = json.loads(text)
    assert (status, answer["error"], len(answer["ids"])) == (400, "no such bucket", 1)
    assert list(inngest_api.ledger.ids) == ["e0"]
    assert (await post(http, inngest_api, [EVENTS[1]]))[0] == 200


@pytest.mark.parametrize(
    "healthy", [EVENTS, [{"name": "a"}], [{"name": "a", "data": {"documentName": 1}}]]
)
async def test_an_event_that_matches_makes_its_request_fail_and_no_other(
    inngest_api, http, healthy
):
    inngest_api.faults.add(ScriptedAnswer(500), times=None, match=Match(prefix="poison"))
    assert (await post(http, inngest_api, healthy))[0] == 200
    assert (await post(http, inngest_api, [*healthy, POISONED]))[0] == 500
    assert inngest_api.ledger.times("bad") == 0


async def test_faults_are_scripted_and_cleared_over_http(inngest_api, http):
    url = f"{inngest_api.url}/fake-inngest/faults"
    fault = {"action": {"kind": "answer", "status": 503}, "times": None}
    async with http.post(url, json=fault) as response:
        assert response.status == 201
        assert (await response.json())[0]["action"]["status"] == 503
    assert (await post(http, inngest_api))[0] == 503
    async with http.get(url) as response:
        assert len(await response.json()) == 1
    async with http.delete(url) as response:
        assert response.status == 204
    assert (await post(http, inngest_api))[0] == 200
    async with http.post(url, json={"action": {"kind": "poison"}}) as response:
        assert response.status == 201
    assert (await post(http, inngest_api, [POISONED]))[0] == 400  # it matches untold


@pytest.mark.parametrize(
    "fault",
    [
        b"",
        b"[]",
        b'{"action":{"kind":"explode"}}',
        b'{"action":{"kind":"answer","status":1}}',
        b'{"action":{"kind":"hang"},"times":0}',
        b'{"action":{"kind":"hang"},"for":1}',
        b'{"action":{"kind":"poison","error":"\xff"}}',
    ],
)
async def test_a_fault_that_is_not_one_is_refused(inngest_api, http, fault):
    async with http.post(f"{inngest_api.url}/fake-inngest/faults", data=fault) as response:
        assert response.status == 400
        assert (await response.json())["error"]
    assert not inngest_api.faults.left


async def test_what_arrived_is_shown_newest_last_and_can_be_forgotten(inngest_api, http):
    await post(http, inngest_api)
    await post(http, inngest_api, EVENTS[2:])
    url = f"{inngest_api.url}/fake-inngest"
    async with http.get(f"{url}/events?limit=2") as response:
        shown = await response.json()
    assert [(entry["id"], entry["times"]) for entry in shown] == [("e2", 2), ("e2", 2)]
    assert shown[-1]["event"] == EVENTS[2]
    async with http.get(f"{url}/events?id=e1") as response:
        assert [entry["event"] for entry in await response.json()] == [EVENTS[1]]
    async with http.get(f"{url}/stats") as response:
        assert await response.json() == {
            "requests": 2,
            "arrivals": 4,
            "ids": 3,
            "stored": 4,
            "storedIds": 3,
            "queued": 0,
            "lost": 0,
            "runs": 3,
            "mostRunsOfAnId": 1,
        }
    async with http.delete(f"{url}/events") as response:
        assert response.status == 204
    async with http.get(f"{url}/events") as response:
        assert await response.json() == []
    not_utf8 = b'{"name":"a","data":{"x":"\xff"}}'
    await (await http.post(f"{inngest_api.url}/e/k", data=not_utf8)).read()
    async with http.get(f"{url}/events") as response:
        [shown] = await response.json()
    assert shown["event"]["data"] == {"x": "\ufffd"}
    async with http.get(f"{url}/events?limit=x") as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.test"},
        {"Host": "rebound.test:8288"},
        {"Host": "10.0.0.1"},
        {"Origin": "http://elsewhere.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_site_gets_nothing_and_changes_nothing(inngest_api, http, headers):
    await post(http, inngest_api)
    url = f"{inngest_api.url}/fake-inngest"
    for method, path in [("DELETE", "events"), ("POST", "faults"), ("GET", "events")]:
        async with http.request(method, f"{url}/{path}", headers=headers, json={}) as response:
            assert response.status == 403
    assert inngest_api.ledger.arrivals == 3


async def test_the_page_of_the_server_itself_may_ask(inngest_api, http):
    headers = {"Origin": inngest_api.url, "Sec-Fetch-Site": "same-origin"}
    async with http.get(f"{inngest_api.url}/fake-inngest/stats", headers=headers) as response:
        assert response.status == 200


async def test_the_clock_moves_and_an_id_runs_again_a_day_after_its_run(inngest_api, http):
    url = f"{inngest_api.url}/fake-inngest/clock"
    runs = []
    for seconds in (0, 86_000, 500):
        async with http.post(url, json={"seconds": seconds}) as response:
            assert response.status == 200
        await post(http, inngest_api, EVENTS[:1])
        runs.append(inngest_api.runs.count)
    assert runs == [1, 1, 2]
