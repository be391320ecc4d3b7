"""POST /api/route of the running service: each check, in its order, and what a 200 promises."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import uuid_utils

from service.stand_in.event_api import EventApi
from service.stand_in.faults import Answer
from tests.acceptance.fleet import Process, environment, running
from tests.contract.storage import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")

GOOD = {"documentName": "example"}
DEEP = b'{"documentName": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


class Poster:
    """A browser of one user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.headers: Any = {}

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.request(method, self.url + path, **options) as answer:
            self.headers = answer.headers
            assert answer.headers["X-Request-Id"]
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def sign_in(self, user_id: str) -> None:
        body = {"email": f"{user_id}@example.com", "id": user_id}
        assert (await self.ask("POST", "/auth/dev-login", json=body))[0] == 200

    async def post(self, body: object = GOOD, **headers: str) -> tuple[int, dict[str, Any]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", "/api/route", json=body, headers=named)

    async def refused(self, **options: Any) -> tuple[int, str]:
        """The status and code of a failure, whose form is checked."""
        status, body = await self.ask("POST", "/api/route", **options)
        assert status >= 400
        assert set(body) == {"status", "code", "error"}
        assert body["status"] == "error"
        assert " " in body["error"]
        return status, body["code"]


@module_fixture
async def inngest() -> AsyncIterator[EventApi]:
    async with EventApi() as api:
        yield api


@module_fixture
async def service(
    tmp_path_factory: pytest.TempPathFactory, inngest: EventApi
) -> AsyncIterator[Process]:
    path = tmp_path_factory.mktemp("route") / "outbox.db"
    async with running("serve", environment=environment(f"sqlite:///{path}", inngest.url)) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def poster(service: Process) -> AsyncIterator[Poster]:
    one = Poster(service.url)
    await one.sign_in(str(uuid_utils.uuid7()))
    yield one
    await one.http.close()


async def test_a_good_post_is_answered_with_its_id_and_arrives_as_promised(
    poster: Poster, inngest: EventApi
) -> None:
    status, body = await poster.post({"documentName": "Jahres\u00adbericht ü.pdf"})
    assert (status, body["status"], set(body)) == (200, "ok", {"status", "eventId"})
    assert poster.headers["Location"] == f"/api/events/{body['eventId']}"
    arrival = await inngest.ledger.wait_for_id(body["eventId"])
    assert arrival is not None
    event = json.loads(arrival.event)
    assert event["name"] == "documents/aws.index"
    assert event["v"] == "1"
    assert abs(event["ts"] - arrival.received_at_ms) < 10_000
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


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"null", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"documentName"', "invalid_json"),
        (b'{"documentName": "a"} x', "invalid_json"),
        (b'{"documentName": NaN}', "invalid_json"),
        (b'{"documentName": "\xff"}', "invalid_json"),
        (b'\xff\xfe{\x00"\x00', "invalid_json"),
        (DEEP, "invalid_json"),
        (b"{}", "document_name_required"),
        (b'{"documentName": null}', "document_name_required"),
        (b'{"documentName": ""}', "document_name_required"),
        (b'{"documentName": " \\t"}', "document_name_required"),
        (b'{"documentName": 7}', "document_name_invalid"),
        (b'{"documentName": ["a"]}', "document_name_invalid"),
        (b'{"documentName": "a\\u0000"}', "document_name_invalid"),
        (b'{"documentName": "a\\n"}', "document_name_invalid"),
        (b'{"documentName": "a\\ud800"}', "document_name_invalid"),
        (b'{"documentName": "a/../b"}', "document_name_invalid"),
        (b'{"documentName": "./b"}', "document_name_invalid"),
        (b'{"documentName": "' + b"x" * 1025 + b'"}', "document_name_invalid"),
        ('{"documentName": "' + "ü" * 513 + '"}', "document_name_invalid"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_body_is_refused(poster: Poster, body: bytes | str, code: str) -> None:
    data = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": "application/json"}
    status, found = await poster.refused(data=io.BytesIO(data), headers=headers)
    assert status == 400
    assert found == code or {found, code} == {"document_name_required", "document_name_invalid"}


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "a b",
        "a/b/c.pdf",
        "..a",
        "a..",
        ".hidden",
        "x" * 1024,
        "ü" * 512,
        "🦊",
        "a\\b",
        "%2e%2e",
    ],
)
async def test_a_good_name_is_taken_and_arrives_unchanged(
    poster: Poster, inngest: EventApi, name: str
) -> None:
    status, body = await poster.post({"documentName": name})
    assert status == 200
    arrival = await inngest.ledger.wait_for_id(body["eventId"])
    assert arrival is not None
    assert json.loads(arrival.event)["data"]["documentName"] == name


async def test_the_same_key_and_body_is_the_same_event(poster: Poster, inngest: EventApi) -> None:
    _, first = await poster.post(Idempotency_Key="k-1")
    assert "Idempotent-Replayed" not in poster.headers
    status, again = await poster.post(Idempotency_Key="k-1")
    assert (status, again) == (200, first)
    assert poster.headers["Idempotent-Replayed"] == "true"
    assert poster.headers["Location"] == f"/api/events/{first['eventId']}"
    answers = await asyncio.gather(*(poster.post(Idempotency_Key="k-2") for _ in range(20)))
    assert len({body["eventId"] for _, body in answers}) == 1
    await inngest.ledger.wait_for_id(answers[0][1]["eventId"])
    assert inngest.ledger.times(first["eventId"]) == 1


async def test_a_key_is_its_users(poster: Poster, service: Process) -> None:
    _, mine = await poster.post(Idempotency_Key="k-1")
    other = Poster(service.url)
    await other.sign_in("somebody-else")
    status, theirs = await other.post({"documentName": "other"}, Idempotency_Key="k-1")
    await other.http.close()
    assert status == 200
    assert theirs["eventId"] != mine["eventId"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ü"])
async def test_a_key_that_is_none_is_refused(poster: Poster, key: str) -> None:
    status, code = await poster.refused(json=GOOD, headers={"Idempotency-Key": key})
    assert (status, code) == (400, "idempotency_key_invalid")


async def test_a_request_id_is_kept_when_it_is_a_plain_token(poster: Poster) -> None:
    await poster.post(X_Request_Id="abc-123")
    assert poster.headers["X-Request-Id"] == "abc-123"
    await poster.post(X_Request_Id="<script>")
    assert poster.headers["X-Request-Id"] != "<script>"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/api/route/", 404, "not_found"),
        ("GET", "/api/events/nothing", 404, "not_found"),
        ("GET", "/api/route", 405, "method_not_allowed"),
        ("DELETE", "/api/route", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_has_the_one_form(
    poster: Poster, method: str, path: str, status: int, code: str
) -> None:
    found, body = await poster.ask(method, path)
    assert (found, body["code"], set(body)) == (status, code, {"status", "code", "error"})
    if status == 405:
        assert "POST" in poster.headers["Allow"]


async def test_two_hundred_at_once_are_all_accepted_and_delivered_once(
    service: Process, inngest: EventApi
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
    await inngest.ledger.wait_until(
        lambda: all(inngest.ledger.times(one) for one in ids), timeout_seconds=20
    )
    assert {inngest.ledger.times(one) for one in ids} == {1}


async def test_without_a_bucket_nothing_is_accepted(tmp_path: Path, inngest: EventApi) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest.url)
    del settings["AWS_S3_REGION"], settings["AWS_S3_BUCKET"]
    async with running("serve", environment=settings) as service:
        one = Poster(service.url)
        status, body = await one.post()
        await one.http.close()
        assert (status, body["code"]) == (503, "storage_not_configured")
        assert "AWS_S3_REGION" in body["error"]
        assert "AWS_S3_BUCKET" in body["error"]


async def test_a_user_without_room_and_a_full_outbox_are_told_so_and_used_keys_still_answer(
    tmp_path: Path,
) -> None:
    async with EventApi() as failing:
        failing.faults.add(Answer(500), times=None)
        settings = environment(
            f"sqlite:///{tmp_path / 'outbox.db'}",
            failing.url,
            OUTBOX_MAX_PENDING="3",
            OUTBOX_MAX_PENDING_PER_USER="2",
        )
        async with running("serve", environment=settings) as service:
            ada, bob = Poster(service.url), Poster(service.url)
            await ada.sign_in("ada")
            await bob.sign_in("bob")
            _, first = await ada.post(Idempotency_Key="k")
            assert (await ada.post())[0] == 200
            assert await ada.refused(json=GOOD) == (429, "too_many_pending")
            assert int(ada.headers["Retry-After"]) > 0
            assert (await bob.post())[0] == 200
            assert await bob.refused(json=GOOD) == (503, "outbox_full")
            assert int(bob.headers["Retry-After"]) > 0
            # This user's own limit is asked before the outbox's, a used key before both.
            assert await ada.refused(json=GOOD) == (429, "too_many_pending")
            assert await ada.post(Idempotency_Key="k") == (200, first)
            other = {"json": {"documentName": "other"}, "headers": {"Idempotency-Key": "k"}}
            assert await ada.refused(**other) == (422, "idempotency_key_reused")
            failing.faults.clear()
            await eventually(bob.post, lambda answer: answer[0] == 200)
            await ada.http.close()
            await bob.http.close()
