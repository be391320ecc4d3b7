"""What the sender makes of the Event API's answers, over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.dev.fake_inngest.faults import ScriptedAnswer
from service.dev.fake_inngest.server import FakeInngest
from service.inngest.send_result import Signal, classify
from service.inngest.sender import InngestSender

KEY = "first/secret key"
FALLBACK = "second-secret"
EVENT = b'{"name":"a"}'


@pytest.fixture
async def sender(inngest_api: FakeInngest) -> AsyncIterator[InngestSender]:
    async with aiohttp.ClientSession() as session:
        yield InngestSender(
            session,
            origin=inngest_api.url,
            key=KEY,
            fallback_key=FALLBACK,
            environment=None,
            timeout_seconds=5,
        )


@pytest.mark.parametrize("named", [KEY, quote(KEY, safe=""), FALLBACK])
@pytest.mark.parametrize("before", ["", "x" * 490])
async def test_the_words_of_a_server_that_quotes_the_event_key_come_back_without_it(
    inngest_api: FakeInngest, sender: InngestSender, named: str, before: str
) -> None:
    body = json.dumps({"error": f"{before}Cannot POST /e/{named}"})
    inngest_api.faults.add(ScriptedAnswer(404, body=body, content_type="application/json"), times=2)
    answer = await sender.send(EVENT)
    assert answer.status == 404
    assert answer.words == f"{before}Cannot POST /e/********"[:500]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_key_that_is_refused_gives_way_to_the_other_one_which_then_comes_first(
    inngest_api: FakeInngest, sender: InngestSender, status: int
) -> None:
    inngest_api.faults.add(ScriptedAnswer(status), times=1)
    assert (await sender.send(EVENT)).status == 200
    assert (await sender.send(EVENT)).status == 200
    assert [request.key for request in inngest_api.ledger.requests] == [KEY, FALLBACK, FALLBACK]


@pytest.mark.parametrize(
    "body", ["event keys are required", '{"error": "Event keys are required"}']
)
async def test_a_server_without_keys_is_a_wrong_configuration_in_whatever_form_it_says_so(
    inngest_api: FakeInngest, sender: InngestSender, body: str
) -> None:
    inngest_api.faults.add(ScriptedAnswer(503, body=body), times=1)
    answer = await sender.send(EVENT)
    assert classify(answer, 1) is Signal.MISCONFIGURED


async def test_a_request_goes_to_its_own_environment_or_to_the_configured_one() -> None:
    seen: list[str | None] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.headers.get("x-inngest-env"))
        return web.json_response({"ids": ["01"], "status": 200})

    app = web.Application()
    app.router.add_post("/e/{key}", take)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        for configured in (None, "staging"):
            sender = InngestSender(
                session,
                origin=str(server.make_url("/")),
                key=KEY,
                fallback_key=None,
                environment=configured,
                timeout_seconds=5,
            )
            await sender.send(EVENT)
            await sender.send(EVENT, {"x-inngest-env": "branch"})
    assert seen == [None, "branch", "staging", "branch"]
