"""Fuzzed requests, sent to the service and to the fake Inngest: the same answers and effects."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.ledger import Arrival
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment, running
from tests.support.fuzzed_events import fuzzed_bodies
from tests.support.inngest_process import EVENT_KEY, REAL, real_inngest_process
from tests.support.storage import eventually

KEY = "a-key-of-the-tests-only"
FEW, MANY = 300, 10_000


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
async def test_a_request_is_answered_and_taken_as_inngest_does(
    request: pytest.FixtureRequest, tmp_path: Path, inngest_api: FakeInngest, store: str
) -> None:
    file = f"sqlite:///{tmp_path / 'outbox.db'}"
    url = file if store == "sqlite" else request.getfixturevalue("postgres_url")
    await compare(url, inngest_api, FEW)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_ten_thousand_requests_are_answered_and_taken_as_inngest_does(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    await compare(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api, MANY)


@pytest.mark.skipif(not REAL, reason="INNGEST_BIN names no server")
async def test_a_request_is_answered_as_a_real_server_answers(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(url, inngest_api.url, OUTBOX_EVENT_KEYS=f"fuzz:{KEY}")
    async with (
        real_inngest_process(tmp_path) as real,
        running("serve", environment=settings) as service,
        aiohttp.ClientSession() as http,
    ):
        for body in fuzzed_bodies(FEW, MANY // 10):
            ours = await ask(http, f"{service.url}/e/{KEY}", body)
            theirs = await ask(http, f"{real.url}/e/{EVENT_KEY}", body)
            assert shape(ours) in shapes_by_chance(theirs), body


async def compare(outbox_url: str, inngest: FakeInngest, count: int) -> None:
    """`inngest` is behind the service; another one is asked directly."""
    settings = environment(outbox_url, inngest.url, OUTBOX_EVENT_KEYS=f"fuzz:{KEY}")
    statuses: Counter[int] = Counter()
    taken: dict[str, Arrival] = {}
    async with (
        FakeInngest() as direct,
        running("serve", environment=settings) as service,
        aiohttp.ClientSession() as http,
    ):
        for body in fuzzed_bodies(count, count):
            ours = await ask(http, f"{service.url}/e/{KEY}", body)
            theirs = await ask(http, f"{direct.url}/e/{KEY}", body)
            assert shape(ours) == shape(theirs), body
            statuses[ours[0]] += 1
            for mine, their in zip(ours[1]["ids"], theirs[1]["ids"], strict=True):
                if mine and mine not in taken:
                    arrival = direct.store.find(their)
                    assert arrival
                    taken[mine] = arrival
        await every_event_is_held(inngest, taken)
    assert set(statuses) == {200, 400}
    print(f"\n{count} fuzzed requests: {dict(statuses)}, {len(taken)} events stored and delivered")


async def ask(http: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    async with http.post(url, data=io.BytesIO(body)) as answer:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        found: dict[str, Any] = json.loads(await answer.read())
        return answer.status, found


def shape(answer: tuple[int, dict[str, Any]]) -> tuple[object, ...]:
    """What two servers have in common; the ids and the words of an error are their own."""
    status, body = answer
    return status, body["status"], [bool(one) for one in body["ids"]], list(body)


def shapes_by_chance(answer: tuple[int, dict[str, Any]]) -> list[tuple[object, ...]]:
    """A real server may leave out the event before JSON that breaks off."""
    status, body_status, given, fields = shape(answer)
    assert isinstance(given, list)
    one_more = (status, body_status, [*filter(None, given), True], fields)
    return [shape(answer), one_more] if status == 400 else [shape(answer)]


async def every_event_is_held(inngest: FakeInngest, taken: dict[str, Arrival]) -> None:
    """Under the id that was answered, with the content that Inngest itself would have."""
    await eventually(lambda: inngest.store.event_count, lambda found: found >= len(taken))
    assert inngest.store.event_count == len(taken)
    for ulid, expected in taken.items():
        found = inngest.store.find(ulid)
        assert found, ulid
        assert content(found) == content(expected)


def content(arrival: Arrival) -> dict[str, Any]:
    """An event without what a server adds, and without what it ignores."""
    event = json.loads(arrival.event)
    chosen = {name.casefold(): value for name, value in event.items() if value is not None}
    meta = {name.casefold(): layer for name, layer in (chosen.get("meta") or {}).items()}
    layers = {name: meta.get(name) for name in ("sessions", "propagated_sessions")}
    given = {name: chosen.get(name) for name in ("v", "user")}
    return {**given, **layers, "name": arrival.name, "data": chosen.get("data") or {}}
