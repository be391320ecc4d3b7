"""POST /api/route of the running service: each check, in its order, and what a 200 promises."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
from typing import Any

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process
from tests.support.poster import Poster
from tests.support.storage import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_good_post_is_answered_with_its_id_and_arrives_as_promised(
    poster: Poster, inngest: FakeInngest
) -> None:
    before_ms = time.time() * 1000
    status, body = await poster.post({"documentName": "Jahres\u00adbericht ü.pdf"})
    after_ms = time.time() * 1000
    assert (status, body["status"], set(body)) == (200, "ok", {"status", "eventId"})
    assert poster.headers["Location"] == f"/api/events/{body['eventId']}"
    arrival = await inngest.ledger.wait_for_id(body["eventId"])
    event = json.loads(arrival.event)
    assert set(event) == {"id", "name", "ts", "v", "user", "data"}
    assert set(event["data"]) == {"documentName", "bucket", "region", "appSettings"}
    assert event["id"] == body["eventId"]
    assert event["name"] == "documents/aws.index"
    assert event["v"] == "1"
    assert before_ms - 1 <= event["ts"] <= after_ms
    assert event["data"]["documentName"] == "Jahres\u00adbericht ü.pdf"
    assert (event["data"]["bucket"], event["data"]["region"]) == ("documents", "eu-west-1")
    assert isinstance(event["data"]["appSettings"], dict)
    assert set(event["user"]) == {"id", "email", "name"}

    async def view() -> dict[str, Any]:
        status, seen = await poster.ask("GET", f"/api/events/{body['eventId']}")
        assert status == 200
        return seen

    seen = await eventually(view, lambda seen: seen["state"] == "delivered")
    assert seen["attempts"] == 1
    assert seen["deliveredAt"] >= seen["acceptedAt"]


SPOILERS: list[tuple[str, tuple[int, str], dict[str, Any]]] = [
    ("session", (401, "session_required"), {"cookies": None}),
    (
        "site",
        (403, "cross_site_request"),
        {"headers": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}},
    ),
    ("type", (415, "json_required"), {"headers": {"Content-Type": "text/plain"}}),
    ("size", (413, "body_too_large"), {"data": b'{"documentName": "' + b"x" * 1_100_000}),
    ("json", (400, "invalid_json"), {"data": b'{"documentName": '}),
    ("name", (400, "document_name_invalid"), {"data": b'{"documentName": "../up"}'}),
    ("key", (422, "idempotency_key_reused"), {"headers": {"Idempotency-Key": "used"}}),
]


@pytest.mark.parametrize(
    "spoiled",
    [
        *((one,) for one in SPOILERS),
        *itertools.combinations(SPOILERS, 2),
        tuple(SPOILERS),
    ],
    ids=lambda spoiled: "+".join(one[0] for one in spoiled),
)
async def test_the_first_check_that_fails_answers(
    poster: Poster, spoiled: tuple[tuple[str, tuple[int, str], dict[str, Any]], ...]
) -> None:
    await poster.post(Idempotency_Key="used")
    options: dict[str, Any] = {
        "data": b'{"documentName": "another"}',
        "headers": {"Content-Type": "application/json"},
    }
    for _, _, changes in reversed(spoiled):  # the first spoiler of the body decides
        options["headers"] = {**options["headers"], **changes.get("headers", {})}
        options["data"] = changes.get("data", options["data"])
        if "cookies" in changes:
            poster.http.cookie_jar.clear()
    options["data"] = io.BytesIO(options["data"])
    assert await poster.refused(**options) == spoiled[0][1]


async def test_two_hundred_at_once_are_all_accepted_and_delivered_once(
    service: Process, inngest: FakeInngest
) -> None:
    async def user(number: int) -> list[str]:
        one = Poster(service.url)
        await one.sign_in(f"crowd-{number}")
        answers = [await one.post() for _ in range(3)]
        await one.http.close()
        assert {status for status, _ in answers} == {200}
        return [body["eventId"] for _, body in answers]

    ids = [one for many in await asyncio.gather(*map(user, range(200))) for one in many]
    assert len(set(ids)) == 600
    await inngest.ledger.wait_until(lambda: all(inngest.ledger.times(one) for one in ids))
    assert {inngest.ledger.times(one) for one in ids} == {1}
