"""Questions to Inngest's REST API, against the fake one over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from service.dev.fake_inngest.event_api import SEED_HEADER
from service.dev.fake_inngest.server import FakeInngest, FakeOptions
from service.errors import InngestApiError
from service.inngest.held import find_held
from service.inngest.rest_api import RestApi
from service.outbox.inngest_id import InngestIds, WantedEvent, seed

KEY = "signkey-test-00112233445566778899aabbccddeeff"
IDS = InngestIds(b"\x00prefi")
NOW_MS = 1_795_559_419_447


def asker(http: aiohttp.ClientSession, url: str, key: str | None = KEY) -> RestApi:
    return RestApi(http, origin=url, signing_key=key, environment=None, timeout_seconds=30)


async def post(http: aiohttp.ClientSession, api: FakeInngest, first: int, count: int) -> None:
    events = [{"name": "a", "id": f"e{seq}"} for seq in range(first, first + count)]
    headers = {SEED_HEADER: seed(IDS.number(first, NOW_MS))}
    async with http.post(f"{api.url}/e/k", data=json.dumps(events), headers=headers) as response:
        assert response.status == 200


def wanted(*seqs: int) -> dict[int, WantedEvent]:
    return {IDS.number(seq, NOW_MS): WantedEvent(f"e{seq}") for seq in seqs}


@pytest.fixture
async def guarded() -> AsyncIterator[FakeInngest]:
    async with FakeInngest(options=FakeOptions(signing_key=KEY)) as api:
        yield api


async def test_the_held_ones_of_many_are_found_by_their_derived_ids(guarded, http):
    await post(http, guarded, 1, 120)
    await post(http, guarded, 200, 30)
    before = guarded.questions.requests
    found = await find_held(asker(http, guarded.url), wanted(*range(1, 300)))
    assert found == wanted(*range(1, 121), *range(200, 230)).keys()
    assert guarded.questions.requests - before <= 5


async def test_one_event_and_its_runs_are_found_by_its_ulid(guarded, http):
    await post(http, guarded, 1, 1)
    events = asker(http, guarded.url)
    ulid = IDS.ulid(1, NOW_MS)
    [run_id] = await events.run_ids(ulid)
    assert await events.run_ids(ulid, thorough=True) == [run_id]
    run = await events.run(run_id)
    assert run.status == "COMPLETED"


async def test_a_refused_key_is_an_error_that_does_not_name_it(guarded, http):
    with pytest.raises(InngestApiError, match="INNGEST_SIGNING_KEY") as refused:
        await asker(http, guarded.url, "signkey-test-ff").run_ids(IDS.ulid(1, NOW_MS))
    assert refused.value.reached
    assert "ff" not in str(refused.value)
