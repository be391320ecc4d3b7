"""What the sender makes of the Event API's answers, over HTTP."""

from __future__ import annotations

import json
from urllib.parse import quote

import aiohttp
import pytest

from service.relay.inngest import InngestSender
from service.stand_in.event_api import EventApi
from service.stand_in.faults import Answer

KEY = "first/secret key"
FALLBACK = "second-secret"


@pytest.mark.parametrize("named", [KEY, quote(KEY, safe=""), FALLBACK])
@pytest.mark.parametrize("before", ["", "x" * 490])
async def test_the_words_of_a_server_that_quotes_the_event_key_come_back_without_it(
    inngest_api: EventApi, named: str, before: str
) -> None:
    body = json.dumps({"error": f"{before}Cannot POST /e/{named}"})
    inngest_api.faults.add(Answer(404, body=body, content_type="application/json"), times=1)
    async with aiohttp.ClientSession() as session:
        sender = InngestSender(
            session,
            origin=inngest_api.url,
            key=KEY,
            fallback_key=FALLBACK,
            environment=None,
            timeout_seconds=5,
        )
        answer = await sender.send([b'{"name":"a"}'])
    assert answer.status == 404
    assert answer.words == f"{before}Cannot POST /e/********"[:500]
