"""What the Event API answers, and the ids that it gives."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest

from inngest_outbox.dev.fake_inngest.event_api import SEED_HEADER
from tests.real_inngest.answers import ANSWERS
from tests.real_inngest.inngest_handle import Inngest
from tests.support.inngest_process import EVENT_KEY
from tests.support.storage import eventually

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
EVENT = {"name": "a", "data": {"n": 1}}


def shape(answer: tuple[int, dict[str, Any]]) -> tuple[int, int | None]:
    """Status and number of ULIDs of an answer, once its form is proven."""
    status, body = answer
    ids = body.get("ids")
    assert (body["status"], "error" in body) == (status, status != 200)
    assert not ids or ids == [""] or all(ULID.fullmatch(one) for one in ids)
    return status, None if ids is None else len([one for one in ids if one])


@pytest.mark.parametrize("case", ANSWERS["intake"], ids=lambda case: case["body"] or "nothing")
async def test_a_request_is_answered_so(inngest: Inngest, case: dict[str, Any]) -> None:
    answer = await inngest.post(case["body"], key=case.get("key", EVENT_KEY))
    status, taken = shape(answer)
    allowed = case["ids"] if isinstance(case["ids"], list) else [case["ids"]]
    assert status == case["status"]
    assert taken in allowed


@pytest.mark.parametrize("change", ANSWERS["events"]["taken"], ids=json.dumps)
async def test_an_event_may_have(inngest: Inngest, change: dict[str, Any]) -> None:
    assert shape(await inngest.post(json.dumps(EVENT | change))) == (200, 1)


@pytest.mark.parametrize("change", ANSWERS["events"]["refused"], ids=json.dumps)
async def test_an_event_is_refused_for(inngest: Inngest, change: dict[str, Any]) -> None:
    assert shape(await inngest.post(json.dumps([EVENT | change]))) == (400, 0)


async def test_numbers_and_names_have_no_bound_but_for_floats_in_data(inngest: Inngest) -> None:
    large = f"1{'0' * 400}"
    assert shape(await inngest.post(f'{{"name": "a", "more": {large}}}')) == (200, 1)
    assert shape(await inngest.post(f'{{"name": "a", "data": {{"x": {large}}}}}')) == (400, 0)
    assert shape(await inngest.post(json.dumps({"name": "n" * 1000}))) == (200, 1)
    assert shape(await inngest.post("[" * 100_000)) == (400, 0)


async def test_events_have_3_mib_and_requests_5000_of_them(inngest: Inngest) -> None:
    wide = {"name": "a", "data": {"x": "x" * 2_097_152}}
    assert shape(await inngest.post(json.dumps([wide] * 10))) == (200, 10)
    wide["data"] = {"x": "x" * 3_145_728}
    assert shape(await inngest.post(json.dumps([wide]))) == (400, 0)
    status, taken = shape(await inngest.post(json.dumps([{"name": "a"}] * 5_001)))
    assert status == 400
    assert taken in (4_999, 5_000)


async def test_gzip_is_not_understood_declared_or_not(inngest: Inngest) -> None:
    body = gzip.compress(json.dumps([EVENT]).encode())
    for headers in ({}, {"Content-Encoding": "gzip"}):
        assert shape(await inngest.post(body, headers)) == (400, 0)


@pytest.mark.parametrize("value", [b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"'])
async def test_what_is_not_unicode_is_replaced(inngest: Inngest, value: bytes) -> None:
    answer = await inngest.post(b'[{"name": "a", "data": {"x": ' + value + b"}}]")
    assert shape(answer) == (200, 1)
    event = await eventually(lambda: inngest.event(answer[1]["ids"][0]))
    assert event is not None
    assert set(event["data"]["x"]) == {"\ufffd"}


async def test_the_internal_data_key_is_stripped(inngest: Inngest) -> None:
    [ulid] = await inngest.send({"name": "a", "data": {"a": 1, "_inngest": {"x": 1}}})
    event = await eventually(lambda: inngest.event(ulid))
    assert event is not None
    assert event["data"] == {"a": 1}


@pytest.mark.parametrize("case", ANSWERS["seeds"], ids=lambda case: case["seed"])
async def test_a_seed_gives_these_ids(inngest: Inngest, case: dict[str, Any]) -> None:
    events = json.dumps([{"name": "a"}, {"name": "a"}])
    given = [(await inngest.post(events, {SEED_HEADER: case["seed"]}))[1]["ids"] for _ in range(2)]
    if case["ids"]:
        assert given == [case["ids"], case["ids"]]
    else:
        assert len({*given[0], *given[1]}) == 4
