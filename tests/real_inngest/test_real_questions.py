"""What the REST API answers to questions about events."""

from __future__ import annotations

import functools
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inngest_outbox.dev.fake_inngest.event_api import SEED_HEADER
from tests.real_inngest.answers import ANSWERS
from tests.real_inngest.inngest_handle import (
    SIGNING_KEY,
    UNKNOWN_ULID,
    Inngest,
    new_key,
    seed,
)
from tests.support.storage import eventually


@pytest.mark.parametrize(
    "case", ANSWERS["questions"], ids=lambda case: f"{case['path']} {case.get('authorization', '')}"
)
async def test_a_question_is_answered_so(inngest: Inngest, case: dict[str, Any]) -> None:
    path = case["path"].format(ulid=UNKNOWN_ULID)
    given = {"authorization": case["authorization"]} if "authorization" in case else {}
    status, answer = await inngest.ask(path, **given)
    wanted = case["answer"]
    if isinstance(answer, dict):
        answer.pop("metadata", None)
        if "error" in wanted:
            wanted = wanted | {"error": wanted["error"].format(ulid=UNKNOWN_ULID)}
    assert (status, answer) == (case["status"], wanted)


@pytest.mark.parametrize(
    ("form", "status"),
    [(form, 200) for form in ANSWERS["authorization"]["accepted"]]
    + [(form, 401) for form in ANSWERS["authorization"]["refused"]],
)
async def test_a_signing_key_has_these_forms(inngest: Inngest, form: str, status: int) -> None:
    key = SIGNING_KEY.rpartition("-")[2]
    brought = form.format(hex=key, hashed=hashlib.sha256(bytes.fromhex(key)).hexdigest())
    for path in ("/v1/events", f"/api/v2/events/{UNKNOWN_ULID}/runs"):
        assert (await inngest.ask(path, brought))[0] == status


@pytest.mark.parametrize("lead_ms", ANSWERS["shown"])
async def test_an_event_is_shown_at_once_whatever_its_ulid_says(
    inngest: Inngest, lead_ms: int | None
) -> None:
    name = f"shown/{new_key()}"
    [ulid] = await inngest.send({"name": name, "data": {"n": 1}}, lead_ms=lead_ms)
    found = await eventually(lambda: inngest.event(ulid))
    assert found is not None
    assert (found["internal_id"], found["id"], found["data"]) == (ulid, ulid, {"n": 1})
    now = datetime.now(UTC)
    assert abs(datetime.fromisoformat(found["received_at"]) - now) < timedelta(minutes=2)
    assert [one["internal_id"] for one in await inngest.page(f"name={name}")] == [ulid]
    for minutes, shown in ((-5, [ulid]), (5, [])):
        at = (now + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        page = await inngest.page(f"name={name}&received_after={at}")
        assert [one["internal_id"] for one in page] == shown
        page = await inngest.page(f"name={name}&received_before={at}")
        assert [one["internal_id"] for one in page] == ([] if shown else [ulid])


async def test_pages_go_down_from_the_highest_ulid_below_the_cursor(inngest: Inngest) -> None:
    name = f"pages/{new_key()}"
    given = await inngest.send(*({"name": name} for _ in range(120)), lead_ms=0)
    for ulid in given:
        await eventually(functools.partial(inngest.event, ulid))
    path, seen = f"name={name}&limit=1000", []
    for size in (51, 51, 18):
        page = await inngest.page(path)
        assert len(page) == size
        seen += [one["internal_id"] for one in page]
        path = f"name={name}&limit=1000&cursor={seen[-1]}"
    assert seen == given[::-1]
    assert len(await inngest.page(f"name={name}")) == 20


async def test_an_event_that_comes_again_under_its_seed_is_listed_twice(inngest: Inngest) -> None:
    name = f"again/{new_key()}"
    headers = {SEED_HEADER: seed(0)}
    body = json.dumps({"name": name})
    [[first], [second]] = [(await inngest.post(body, headers))[1]["ids"] for _ in range(2)]
    page = await eventually(lambda: inngest.page(f"name={name}"), lambda found: len(found) > 1)
    assert {first, second} == {first} == {one["internal_id"] for one in page}


async def test_an_answer_about_one_event_is_repeated_by_its_whole_url(inngest: Inngest) -> None:
    headers = {SEED_HEADER: seed(0)}
    [ulid] = (await inngest.post('{"name": "py/echo"}', headers))[1]["ids"]
    found = f"/v1/events/{ulid}"
    await eventually(lambda: inngest.ask(found), lambda answer: answer[1]["data"] is not None)
    old = f"/v1/events/{ulid}/runs?first"
    first = (await inngest.ask(old))[1]
    for path in (found, old):
        kept = (await inngest.ask(path))[1]
        await inngest.ended(ulid)
        assert (await inngest.ask(path))[1] == kept
    assert (await inngest.ask(old))[1] == first
    assert await inngest.old_runs(ulid) != []
