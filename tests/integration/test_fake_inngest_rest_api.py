"""The fake Inngest by its own clock and stores; the rest is held beside a real one."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from service.dev.fake_inngest.event_api import SEED_HEADER
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.storage import eventually


async def post(
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
