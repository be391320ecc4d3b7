"""POST /e/{key} over a real socket: what a client of Inngest's own server would see."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientResponse

from inngest_outbox.bootstrap.service import Service
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.inngest_id import (
    COUNTER_BITS,
    ENVIRONMENT_HEADER,
    SEED_HEADER,
    decode_ulid,
    seed,
)
from inngest_outbox.outbox.model import Filter
from inngest_outbox.web.intake.event_batch import MAX_BATCH_BYTES
from inngest_outbox.web.intake.inngest_intake import OWN_EVENTS
from tests.support.raw_http import send
from tests.support.service_client import Client, service_client

KEY = "0123456789abcdef"
WEB_KEY = "fedcba9876543210"
EVENTS = [{"name": "a/b", "data": {"x": 1}}, {"name": "b", "id": "mine"}]


class Door:
    """The service, asked as an SDK asks it."""

    def __init__(self, client: Client, service: Service) -> None:
        self.client = client
        self.service = service

    async def send(
        self, events: object, *, key: str = KEY, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        answer = await self.answer(events, key=key, headers=headers)
        return answer.status, json.loads(await answer.read())

    async def answer(
        self, events: object, *, key: str = KEY, headers: dict[str, str] | None = None
    ) -> ClientResponse:
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        return await self.client.post(f"/e/{key}", data=io.BytesIO(body), headers=headers)

    async def names(self) -> list[str]:
        rows = await self.service.outbox.inspector.rows(Filter())
        return [row.name for row in reversed(rows)]


@contextlib.asynccontextmanager
async def opened(folder: Path, **changes: str) -> AsyncIterator[Door]:
    given = {"OUTBOX_EVENT_KEYS": f"cron:{KEY},web:{WEB_KEY}", **changes}
    async with service_client(folder, **given) as (service, client):
        yield Door(client, service)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path) as one:
        yield one


async def test_an_array_is_stored_and_answered_byte_for_byte_as_inngest_answers(door: Door) -> None:
    answer = await door.answer(EVENTS)
    body = await answer.text()
    first, second = json.loads(body)["ids"]
    assert body == f'{{"ids":["{first}","{second}"],"status":200}}\n'
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert await door.names() == ["a/b", "b"]


async def test_one_event_needs_no_array_and_no_content_type(door: Door) -> None:
    status, answer = await door.send({"name": "a"}, **{"Content-Type": "text/html"})
    assert (status, len(answer["ids"])) == (200, 1)


async def test_no_event_is_a_success_with_an_empty_id(door: Door) -> None:
    for body in (b"", b"[]", b" "):
        assert await door.send(body) == (200, {"ids": [""], "status": 200})


async def test_events_before_a_bad_one_are_stored_and_named(door: Door) -> None:
    status, answer = await door.send([*EVENTS, {"name": ""}, {"name": "after"}])
    assert (status, answer["status"], len(answer["ids"])) == (400, 400, 2)
    assert answer["error"] == "The event's name must be present"
    assert await door.names() == ["a/b", "b"]


async def test_a_body_without_a_good_event_is_refused_with_an_empty_id(door: Door) -> None:
    for body in (
        b"nonsense",
        b"[1]",
        b"[" * 100_000,
        json.dumps({"name": "a", "data": {"x": "x" * 3_145_728}}).encode(),
        gzip.compress(b'{"name":"a"}'),
    ):
        status, answer = await door.send(body)
        assert (status, answer["status"], answer["ids"]) == (400, 400, [""]), body[:20]
        assert answer["error"]
    status, answer = await door.send(b" " * (MAX_BATCH_BYTES + 1))
    assert (status, answer["status"], answer["ids"]) == (413, 413, [""])
    answer = await door.answer(b"nonsense", key="guess")  # before the body is read
    expected = '{"ids":[],"status":401,"error":"Event key not found"}\n'
    assert (answer.status, await answer.text()) == (401, expected)
    assert await door.names() == []


async def test_without_keys_there_is_no_such_path(tmp_path: Path) -> None:
    async with opened(tmp_path, OUTBOX_EVENT_KEYS="") as door:
        status, answer = await door.send(EVENTS)
        assert (status, answer["code"]) == (404, "not_found")
        posted = await door.client.post(
            "/api/events", json=EVENTS, headers={"Authorization": f"Bearer {KEY}"}
        )
        assert posted.status == 404


async def test_another_method_is_not_allowed(door: Door) -> None:
    for method in ("GET", "HEAD", "PUT"):
        answer = await door.client.request(method, f"/e/{KEY}")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_seed_that_can_not_be_read_counts_as_none(door: Door) -> None:
    seeds = ("x", "0,w+OubQLDQDVz3w==", "1795647589663,w+Ou", "1,AAAAAAAAAAAAAAAAAAAAAA==")
    for number, given in enumerate((*seeds, "1,AAAAAAAAAAAAAA==x", ""), 1):
        for _ in range(2):
            await door.send({"name": "a"}, **{SEED_HEADER: given})
        assert await door.names() == ["a", "a"] * number, given


async def test_events_that_the_outbox_sent_are_refused_and_those_of_another_one_are_taken(
    door: Door,
) -> None:
    _, answer = await door.send({"name": "a"})
    number = decode_ulid(answer["ids"][0])
    refused = {"ids": [], "status": 403, "error": OWN_EVENTS}
    own, others = seed(number), seed(number ^ 1 << COUNTER_BITS)
    assert await door.send({"name": "b"}, **{SEED_HEADER: own}) == (403, refused)
    assert (await door.send({"name": "c"}, **{SEED_HEADER: others}))[0] == 200
    assert await door.names() == ["a", "c"]


async def test_an_environment_in_one_byte_a_letter_is_read_as_browsers_mean_it(door: Door) -> None:
    head = (
        f"POST /e/{KEY} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Length: 12\r\n{ENVIRONMENT_HEADER}: gr\u00fcn\r\n\r\n"
    ).encode("latin-1")
    assert (await send(door.client.port, head + b'{"name":"a"}'))[0] == 200
    [row] = await door.service.outbox.inspector.rows(Filter())
    assert row.meta.environment == "gr\u00fcn"


async def test_a_name_has_its_own_quota_and_all_of_a_request_has_room_or_none(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, OUTBOX_MAX_PENDING_PER_USER="2") as door:
        answer = await door.answer([{"name": "a"}] * 3)
        refused = json.loads(await answer.read())
        assert (answer.status, refused["status"], refused["ids"]) == (429, 429, [""])
        assert int(answer.headers["Retry-After"]) >= 1
        assert await door.names() == []
        assert (await door.send([{"name": "a"}] * 2))[0] == 200
        assert (await door.send([{"name": "a"}] * 2, key=WEB_KEY))[0] == 200


async def test_a_full_outbox_says_when_to_try_again(tmp_path: Path) -> None:
    async with opened(tmp_path, OUTBOX_MAX_PENDING="1") as door:
        await door.send({"name": "a"})
        answer = await door.answer({"name": "a"})
        assert (answer.status, json.loads(await answer.read())["ids"]) == (503, [""])
        assert int(answer.headers["Retry-After"]) >= 1


async def test_a_store_that_is_away_is_told_as_inngest_would(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = mock.AsyncMock(side_effect=OutboxUnavailableError)
    monkeypatch.setattr(type(door.service.outbox.intake), "append_all", away)
    told = {"ids": [""], "status": 503, "error": str(OutboxUnavailableError())}
    assert await door.send({"name": "a"}) == (503, told)


async def test_a_name_has_its_own_rate(tmp_path: Path) -> None:
    async with opened(tmp_path, RATE_LIMIT_PER_USER="0.001") as door:
        statuses = [(await door.send({"name": "a"}))[0] for _ in range(2)]
        assert statuses == [200, 429]
        assert (await door.send({"name": "a"}, key=WEB_KEY))[0] == 200


async def test_what_was_accepted_and_refused_is_counted(door: Door) -> None:
    await door.send(EVENTS)
    await door.send(b" " * (MAX_BATCH_BYTES + 1))
    await door.send(EVENTS, key="guess")
    figures = await (await door.client.get("/metrics")).text()
    assert 'outbox_accepted_by_key_total{key="cron"} 2.0' in figures
    for code in ("body_too_large", "event_key_required"):
        assert f'outbox_refused_total{{code="{code}"}} 1.0' in figures
    assert KEY not in figures
