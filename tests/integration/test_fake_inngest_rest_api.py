"""The fake Inngest's REST API answers as facts about the real one say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from service.dev.fake_inngest.event_api import SEED_HEADER
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.storage import PATIENCE_SECONDS

KEY = "00112233445566778899aabbccddeeff"
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def post(
    http: aiohttp.ClientSession, api: FakeInngest, count: int, **extra: Any
) -> list[str]:
    events = [{"name": "a", "id": f"e{n}", "data": {"n": n}, **extra} for n in range(count)]
    seed = {SEED_HEADER: "1795559419447,AAECAwQFBgcICQ=="}
    async with http.post(f"{api.url}/e/key", data=json.dumps(events), headers=seed) as response:
        ids: list[str] = (await response.json(content_type=None))["ids"]
        return ids


async def get(
    http: aiohttp.ClientSession, api: FakeInngest, path: str, key: str | None = None
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with http.get(f"{api.url}/v1/{path}", headers=headers) as response:
        refused = response.status == 401
        return response.status, {} if refused else await response.json()


async def test_a_stored_event_is_found_by_the_id_that_was_answered(inngest_api, http):
    [given] = await post(http, inngest_api, 1)
    status, answer = await get(http, inngest_api, f"events/{given}")
    assert status == 200
    found = answer["data"]
    assert (found["internal_id"], found["id"], found["name"]) == (given, "e0", "a")
    assert found["data"] == {"n": 0}


async def test_an_event_that_is_not_there_is_a_200_that_says_404(inngest_api, http):
    status, answer = await get(http, inngest_api, f"events/{UNKNOWN}")
    assert (status, answer["status"], answer["data"]) == (200, 404, None)
    status, answer = await get(http, inngest_api, f"events/{UNKNOWN}/runs")
    assert (status, answer["data"]) == (200, [])


@pytest.mark.parametrize("path", ["events/e0", "events/e0/runs", "events?cursor=e0"])
async def test_an_id_that_is_no_ulid_is_refused(inngest_api, http, path):
    status, answer = await get(http, inngest_api, path)
    assert (status, answer["status"]) == (200, 400)


async def test_lists_go_back_from_the_newest_in_pages_of_at_most_fifty_one(inngest_api, http):
    given = await post(http, inngest_api, 120)
    path, seen = "events?limit=1000", []
    for size in (51, 51, 18):
        _, answer = await get(http, inngest_api, path)
        assert len(answer["data"]) == size
        seen += [one["internal_id"] for one in answer["data"]]
        path = f"events?limit=1000&cursor={seen[-1]}"
    assert seen == given[::-1]
    _, answer = await get(http, inngest_api, "events")
    assert len(answer["data"]) == 20


async def test_lists_can_be_of_one_name_and_of_a_time(inngest_api, http):
    await post(http, inngest_api, 2)
    for query, count in [
        ("name=a", 2),
        ("name=b", 0),
        ("received_after=2026-01-01T00:00:00Z", 2),
        ("received_before=2026-01-01T00:00:00Z", 0),
    ]:
        _, answer = await get(http, inngest_api, f"events?{query}")
        assert len(answer["data"]) == count


async def test_an_event_that_comes_again_under_its_seed_is_listed_twice_and_runs_once(
    inngest_api, http
):
    [given] = await post(http, inngest_api, 1)
    await post(http, inngest_api, 1)
    assert (inngest_api.store.event_count, inngest_api.runs.count) == (2, 1)
    _, answer = await get(http, inngest_api, f"events/{given}/runs")
    assert [(run["event_id"], run["status"]) for run in answer["data"]] == [(given, "Completed")]


async def test_with_a_signing_key_nobody_else_may_ask(http):
    async with FakeInngest(options=FakeOptions(signing_key=f"signkey-test-{KEY}")) as api:
        for path in ("events", f"events/{UNKNOWN}", f"events/{UNKNOWN}/runs"):
            assert (await get(http, api, path))[0] == 401
            assert (await get(http, api, path, "00"))[0] == 401
            assert (await get(http, api, path, KEY))[0] == 200


async def test_answers_about_one_event_are_repeated_until_their_time_is_over(http):
    async with FakeInngest(options=FakeOptions(cached=True)) as api:
        [given] = await post(http, api, 1)
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
            await post(http, api, 1)


async def test_a_slow_store_lags_behind_the_answers_and_a_stop_loses_the_rest(http, tmp_path):
    options = FakeOptions(store_rate=40, store_path=tmp_path / "events.db")
    async with FakeInngest(options=options) as api:
        given = await post(http, api, 400)
        assert len(given) == api.ledger.arrivals == 400
        async with asyncio.timeout(PATIENCE_SECONDS):
            while api.store.event_count < 10:  # noqa: ASYNC110  (a store has no event to wait for)
                await asyncio.sleep(0.01)
        await api.close()
        stored, lost = api.store.event_count, api.storing.lost
        assert stored + lost == 400
        assert lost > 0
        await api.start()
        assert (await get(http, api, f"events/{given[0]}"))[1]["data"]["id"] == "e0"
        assert (await get(http, api, f"events/{given[-1]}"))[1]["status"] == 404
    async with FakeInngest(options=FakeOptions(store_path=tmp_path / "events.db")) as api:
        assert (api.store.event_count, api.runs.count) == (stored, stored)
