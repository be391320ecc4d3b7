"""POST /api/events, and everything about one's own events, with an event key."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inngest_outbox.bootstrap.service import Service
from inngest_outbox.outbox.model import Filter
from tests.support.service_client import Client, service_client
from tests.support.storage import eventually

KEY = "0123456789abcdef"
SECOND_KEY = "00000000deadbeef"
WEB_KEY = "fedcba9876543210"
EVENTS = [{"name": "a/b", "data": {"x": 1}, "id": "mine"}, {"name": "b"}]


class Machine:
    """A client with a key."""

    def __init__(self, client: Client, service: Service) -> None:
        self.client = client
        self.service = service

    async def ask(
        self, method: str, path: str, *, key: str | None = KEY, **options: Any
    ) -> tuple[int, Any]:
        headers = {**({"Authorization": f"Bearer {key}"} if key else {})}
        headers |= options.pop("headers", {})
        answer = await self.client.request(method, path, headers=headers, **options)
        body = await answer.read()
        return answer.status, json.loads(body) if body else None

    async def is_paused(self) -> bool:
        return self.service.relay is not None and self.service.relay.breaker.paused

    async def post(self, events: object, **options: Any) -> Any:
        status, answer = await self.ask("POST", "/api/events", json=events, **options)
        assert status == 200, answer
        return answer


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    keys = f"cron:{KEY},cron:{SECOND_KEY},web:{WEB_KEY}"
    given = {"OUTBOX_EVENT_KEYS": keys, "OPERATOR_EMAILS": "kim@example.com"}
    async with service_client(tmp_path, **given) as (service, client):
        yield Machine(client, service)


async def test_events_are_accepted_under_ids_of_inngest_s_and_of_ours(machine: Machine) -> None:
    answer = await machine.post(EVENTS)
    assert answer["status"] == "ok"
    assert [len(one) for one in answer["ids"]] == [26, 26]
    assert [len(one) for one in answer["eventIds"]] == [36, 36]
    # Another site may post with a key, because it can't know one.
    elsewhere = {"Origin": "https://elsewhere.example"}
    single = await machine.post({"name": "a"}, headers=elsewhere)
    assert len(single["ids"]) == 1


async def test_one_bad_event_refuses_all_and_is_named_by_its_place(machine: Machine) -> None:
    status, answer = await machine.ask("POST", "/api/events", json=[*EVENTS, {"name": "inngest/x"}])
    assert (status, answer["code"]) == (400, "invalid_field")
    assert answer["error"].startswith("Event 3: The event's name is reserved")
    assert (await machine.ask("GET", "/api/events"))[1]["events"] == []


async def test_a_refusal_has_the_form_of_every_failure(machine: Machine) -> None:
    as_json = {"Content-Type": "application/json"}
    for options, status, code in (
        ({"json": EVENTS, "key": "guess"}, 401, "event_key_required"),
        ({"json": EVENTS, "key": None}, 401, "event_key_required"),
        ({"data": b"[]", "headers": {"Content-Type": "text/plain"}}, 415, "json_required"),
        *(
            ({"data": body, "headers": as_json}, 400, "invalid_json")
            for body in (b'{"name":"\xff"}', b"x", b"1", b'[{"name":"a"},')
        ),
        (
            {"json": EVENTS, "headers": {"Idempotency-Key": "two words"}},
            400,
            "idempotency_key_invalid",
        ),
        (
            {"data": io.BytesIO(b" " * (20 * 1024 * 1024 + 1)), "headers": as_json},
            413,
            "body_too_large",
        ),
    ):
        answered, answer = await machine.ask("POST", "/api/events", **options)
        assert (answered, answer["status"], answer["code"]) == (status, "error", code), options


async def test_an_idempotency_key_repeats_a_request_and_not_another(machine: Machine) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await machine.post([{"name": "a"}], headers=key)
    answer = await machine.client.post(
        "/api/events", json=[{"name": "a"}], headers={"Authorization": f"Bearer {KEY}", **key}
    )
    assert (await answer.json(), answer.headers["Idempotent-Replayed"]) == (first, "true")
    some = [{"name": "a", "id": "1"}, {"name": "a", "id": "2"}]
    for events, replayed in (([], None), (some[:1], None), (some, None), (some, "true")):
        answer = await machine.client.post(
            "/api/events", json=events, headers={"Authorization": f"Bearer {KEY}"}
        )
        assert (answer.status, answer.headers.get("Idempotent-Replayed")) == (200, replayed)
    many = {"Idempotency-Key": "k-2"}
    for _ in range(2):
        assert (await machine.post([{"name": "a"}] * 300, headers=many))["status"] == "ok"
    one = {"name": "a"}
    for given, other in ((key, [{"name": "b"}]), (key, [one, one]), (many, [one] * 299)):
        status, refused = await machine.ask("POST", "/api/events", json=other, headers=given)
        assert (status, refused["code"]) == (422, "idempotency_key_reused")


async def test_an_event_is_found_under_each_of_its_ids_with_each_key_of_its_name(
    machine: Machine,
) -> None:
    answer = await machine.post(EVENTS)
    for event_id in (answer["ids"][0], answer["eventIds"][0], "mine"):
        for key in (KEY, SECOND_KEY):
            status, event = await machine.ask("GET", f"/api/events/{event_id}", key=key)
            assert (status, event["id"]) == (200, answer["eventIds"][0])
        assert (await machine.ask("GET", f"/api/events/{event_id}", key=WEB_KEY))[0] == 404
        assert (await machine.ask("GET", f"/api/events/{event_id}", key=None))[0] == 401
    await machine.post({"name": "other"}, key=WEB_KEY)
    _, page = await machine.ask("GET", "/api/events")
    assert [event["name"] for event in page["events"]] == ["b", "a/b"]
    newer = await machine.post({"name": "paid", "id": "mine"})  # the newer of two is shown
    assert (await machine.ask("GET", "/api/events/mine"))[1]["id"] == newer["eventIds"][0]


async def test_an_event_is_waited_for_and_streamed_with_a_key(machine: Machine) -> None:
    answer = await machine.post(EVENTS)
    event_id = answer["ids"][0]
    status, event = await machine.ask("GET", f"/api/events/{event_id}?wait=1")
    assert (status, event["name"]) == (200, "a/b")
    headers = {"Authorization": f"Bearer {KEY}"}
    async with machine.client.get(f"/api/events/{event_id}/stream", headers=headers) as stream:
        line = await stream.content.readuntil(b"\n\n")
    assert answer["eventIds"][0].encode() in line


async def test_an_event_that_was_never_sent_is_taken_back_and_the_audit_names_the_key(
    machine: Machine,
) -> None:
    await machine.service.outbox.repairs.set_paused(paused=True, actor="kim@example.com")
    await eventually(machine.is_paused, bool)
    answer = await machine.post(EVENTS)
    assert (await machine.ask("DELETE", "/api/events/mine", key=WEB_KEY))[0] == 404
    assert (await machine.ask("DELETE", "/api/events/mine"))[0] == 204
    assert (await machine.ask("GET", f"/api/events/{answer['eventIds'][0]}"))[0] == 404
    [audit, *_] = await machine.service.outbox.inspector.audit(1)
    assert audit.actor == "key cron"


async def test_an_operator_sees_the_event_of_a_machine_and_a_user_does_not(
    machine: Machine,
) -> None:
    answer = await machine.post(EVENTS)
    path = f"/api/events/{answer['ids'][0]}"
    for email, status in (("ada@example.com", 404), ("kim@example.com", 200)):
        signed_in = await machine.client.post("/auth/dev-login", json={"email": email})
        assert signed_in.status == 200
        assert (await machine.ask("GET", path, key=None))[0] == status


async def test_a_key_opens_nothing_else(machine: Machine) -> None:
    for method, path in (
        ("POST", "/api/route"),
        ("GET", "/api/settings"),
        ("PUT", "/api/settings"),
        ("GET", "/outbox"),
    ):
        status, _ = await machine.ask(method, path, json={})
        assert status in {401, 503}, path


async def test_send_at_holds_an_event_of_a_machine_and_a_wrong_one_is_refused(
    machine: Machine,
) -> None:
    later = 4_102_444_800_000
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    events = [
        {"name": "a", "sendAt": later},
        {"name": "b", "sendAt": 1},
        {"name": "c", "sendAt": 0},
    ]
    answer = await machine.post(events, headers={"traceparent": trace})
    rows = {row.name: row for row in await machine.service.outbox.inspector.rows(Filter())}
    assert {name: row.meta.due_at_ms for name, row in rows.items()} == {"a": later, "b": 0, "c": 0}
    assert {row.meta.trace for row in rows.values()} == {trace}
    assert len(answer["eventIds"]) == 3
    for wrong in ("soon", -1, 4_102_444_800_001, 1.5):
        status, refused = await machine.ask(
            "POST", "/api/events", json={"name": "a", "sendAt": wrong}
        )
        assert (status, refused["code"]) == (400, "invalid_field")
        if isinstance(wrong, int):
            assert refused["error"].endswith(
                "sendAt must be in milliseconds, between 1970 and 2100."
            )
