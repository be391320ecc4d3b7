"""The route of an event type: its checks in their order, one append, its answer, its repeats."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from inngest_outbox.errors import (
    DocumentNameInvalidError,
    IdempotencyKeyInvalidError,
    InvalidJsonError,
    SenderNotAllowedError,
    StorageNotConfiguredError,
)
from inngest_outbox.event_types.body_schema import BodySchema
from inngest_outbox.event_types.event_type import SESSION, EventType, Senders
from inngest_outbox.identity.user import EVENT_KEY_ISSUER, User
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt, plain_digests
from inngest_outbox.web.intake.event_route import EventRoute
from inngest_outbox.web.intake.idempotency import given_key, idempotency_key
from inngest_outbox.web.server.middleware import event_id_key
from tests.support.made_request import JSON, made_request

ADA = User(issuer="dev", id="u-1", email="ada@example.com", name="Ada")
MILLION = 1024 * 1024
FAR_MS = 4_000_000_000_000
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Taken(NullRecorder):
    """An intake, a recorder and a sender's session at once; it remembers what it is asked."""

    def __init__(self) -> None:
        self.appended: list[tuple[Event, IdempotencyKey | None]] = []
        self.counted: list[tuple[str, dict[str, str]]] = []
        self.order: list[str] = []
        self.error: Exception | None = None
        self.user, self.replayed = ADA, False

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        if self.error:
            raise self.error
        self.appended.append((event, key))
        return Receipt(event.id, 1, event.accepted_at_ms, InngestIds(bytes(6)), self.replayed)

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        self.counted.append((name, labels))

    async def sender(self, request: web.Request) -> User:
        self.order.append("sender")
        return self.user


def made(taken: Taken, **changes: Any) -> EventRoute:
    async def data(body: Any, user: User) -> dict[str, Any]:
        return {"body": dict(body), "by": user.id}

    given: dict[str, Any] = {"name": "thing/made", "path": "/api/things", "summary": ""}
    schema = BodySchema({"type": "object", "properties": {"size": {"type": "integer"}}})
    kind = EventType(**{**given, "body": schema, "data": data, **changes})
    return EventRoute(kind, taken, taken.sender, taken)  # type: ignore[arg-type]


async def post(
    taken: Taken, body: object = None, *, headers: Sequence[tuple[str, str]] = (), **changes: Any
) -> tuple[web.Response, web.Request]:
    raw = body if isinstance(body, bytes) else json.dumps(body or {"size": 1}).encode()
    request = made_request(raw, [*JSON.items(), *headers])
    return await made(taken, **changes).post(request), request


async def refused(kind: type[Exception], body: object = None, **changes: Any) -> Taken:
    taken = Taken()
    with pytest.raises(kind):
        await post(taken, body, **changes)
    assert taken.appended == []
    assert taken.counted == []
    return taken


async def test_a_post_appends_one_event_and_its_answer_and_its_line_name_it() -> None:
    taken = Taken()
    before = int(time.time() * 1000)
    answer, request = await post(taken, {"size": 7}, headers=[("traceparent", TRACE)])
    [(event, key)] = taken.appended
    assert key is None
    assert (event.name, event.owner, event.user_id) == ("thing/made", ADA.owner, "u-1")
    assert (event.meta.due_at_ms, event.meta.trace) == (0, TRACE)
    assert before <= event.accepted_at_ms <= int(time.time() * 1000)
    assert json.loads(event.payload)["data"] == {"body": {"size": 7}, "by": "u-1"}
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.text or "") == {"status": "ok", "eventId": event.id}
    assert answer.headers["Location"] == f"/api/events/{event.id}"
    assert "Idempotent-Replayed" not in answer.headers
    assert request[event_id_key] == event.id
    assert taken.counted == [("accepted_by_type", {"name": "thing/made"})]


@pytest.mark.parametrize("issuer", ["dev", EVENT_KEY_ISSUER])
@pytest.mark.parametrize("replayed", [False, True])
async def test_a_repeat_is_told_and_not_counted_and_a_machine_is_counted_by_its_key(
    issuer: str, *, replayed: bool
) -> None:
    taken = Taken()
    taken.user, taken.replayed = User(issuer, "cron"), replayed
    answer, request = await post(taken, senders=Senders((SESSION, EVENT_KEY_ISSUER)))
    [(event, _)] = taken.appended
    assert (answer.status, request[event_id_key]) == (200, event.id)
    assert answer.headers.get("Idempotent-Replayed") == ("true" if replayed else None)
    by_key = [("accepted_by_key", {"key": "cron"})] if issuer == EVENT_KEY_ISSUER else []
    counted = [("accepted_by_type", {"name": "thing/made"}), *by_key]
    assert taken.counted == ([] if replayed else counted)


async def test_others_run_while_a_large_body_is_checked() -> None:
    taken, turns = Taken(), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await post(taken, b'{"many":[' + b"[]," * (MILLION // 4) + b"1]}")
    other.cancel()
    assert len(taken.appended) == 1
    assert turns > 3
    assert gc.isenabled()
    await refused(InvalidJsonError, b"[" * MILLION)
    assert gc.isenabled()


async def test_a_key_is_checked_before_the_data_is_asked_for() -> None:
    async def data(body: Any, user: User) -> dict[str, Any]:
        raise AssertionError("the key is wrong")

    for key in ("a b", ""):
        await refused(IdempotencyKeyInvalidError, headers=[("Idempotency-Key", key)], data=data)


@pytest.mark.parametrize(
    ("send_at", "is_delayed"), [(FAR_MS, True), (0, False), (1, False), (None, False)]
)
async def test_an_event_is_delayed_until_a_time_to_come(
    send_at: int | None, *, is_delayed: bool
) -> None:
    taken = Taken()
    await post(taken, {"sendAt": send_at}, headers=[("traceparent", TRACE)])
    [(event, _)] = taken.appended
    assert event.meta == Meta(trace=TRACE, due_at_ms=(send_at or 0) if is_delayed else 0)


async def test_a_type_that_can_not_be_accepted_asks_for_no_sender() -> None:
    def require() -> None:
        raise StorageNotConfiguredError

    taken = await refused(StorageNotConfiguredError, b"{", require=require)
    assert taken.order == []


async def test_who_may_not_post_is_told_before_the_body_is_looked_at() -> None:
    machines = Senders((EVENT_KEY_ISSUER,))
    taken = await refused(SenderNotAllowedError, b"{", senders=machines)
    assert taken.order == ["sender"]


@pytest.mark.parametrize("body", [b'{"size": "one"}', b'{"size": "\\ud800"}'])
async def test_the_types_own_check_comes_before_the_schema_and_sees_lone_surrogates(
    body: bytes,
) -> None:
    def check_first(body: Any) -> None:
        raise DocumentNameInvalidError

    await refused(DocumentNameInvalidError, body, check_first=check_first)


@pytest.mark.parametrize("body", [b'{"size": "one}', b'{"a": NaN, "b": "\\ud800"}', b'["\\ud800"]'])
async def test_the_types_own_check_sees_no_body_that_is_no_json(body: bytes) -> None:
    def check_first(body: Any) -> None:
        raise DocumentNameInvalidError

    await refused(InvalidJsonError, body, check_first=check_first)


def headers(*keys: str) -> list[tuple[str, str]]:
    return [("Idempotency-Key", key) for key in keys]


@pytest.mark.parametrize("key", ["k", "!~", "x" * 255])
async def test_a_key_of_visible_ascii_is_taken(key: str) -> None:
    assert given_key(made_request(headers=headers(key))) == key


@pytest.mark.parametrize("keys", [("",), ("x" * 256,), ("a b",), ("é",), ("a\x7f",), ("a", "a")])
async def test_another_key_or_a_second_one_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(IdempotencyKeyInvalidError):
        idempotency_key(made_request(headers=headers(*keys)), "/p", {}, plain_digests)


async def digest(path: str, body: Any) -> bytes:
    key = idempotency_key(made_request(headers=headers("k")), path, body, plain_digests)
    assert key
    assert key.key == "k"
    assert len(key.digest) == 32
    return key.digest


async def test_equal_bodies_for_one_path_are_one_use_whatever_their_order() -> None:
    first = await digest("/p", {"a": 1, "b": {"c": 2, "d": 3}})
    assert first == await digest("/p", {"b": {"d": 3, "c": 2}, "a": 1})
    others = [
        await digest("/q", {"a": 1, "b": {"c": 2, "d": 3}}),
        await digest("/p", {"a": 2, "b": {"c": 2, "d": 3}}),
        await digest("/p", {"a": 1, "b": {"c": 2}}),
        await digest("/p{", {}),
    ]
    assert len({first, *others}) == 5
