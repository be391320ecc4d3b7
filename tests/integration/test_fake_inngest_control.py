"""The fake Inngest's own endpoints: faults are scripted, and what arrived is shown."""

from __future__ import annotations

import pytest

from tests.support.batches import EVENTS, POISONED, post


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


async def test_poison_scripted_over_http_matches_without_being_told_how(inngest_api, http):
    async with http.post(
        f"{inngest_api.url}/fake-inngest/faults", json={"action": {"kind": "poison"}}
    ) as response:
        assert response.status == 201
    assert (await post(http, inngest_api, [POISONED]))[0] == 400


@pytest.mark.parametrize(
    "fault",
    [
        b"",
        b"[]",
        b'{"action":{"kind":"explode"}}',
        b'{"action":{"kind":"answer","status":1}}',
        b'{"action":{"kind":"hang"},"times":0}',
        b'{"action":{"kind":"hang"},"for":1}',
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


async def test_an_event_that_is_not_utf_8_is_shown_with_replacements(inngest_api, http):
    await (
        await http.post(f"{inngest_api.url}/e/k", data=b'{"name":"a","data":{"x":"\xff"}}')
    ).read()
    async with http.get(f"{inngest_api.url}/fake-inngest/events") as response:
        [shown] = await response.json()
    assert shown["event"]["data"] == {"x": "\ufffd"}


async def test_a_limit_that_is_no_number_is_refused(inngest_api, http):
    async with http.get(f"{inngest_api.url}/fake-inngest/events?limit=x") as response:
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
