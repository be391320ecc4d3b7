"""POST /e/{key} in the form of Inngest's own server: what is stored, and what each answer says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from service.errors import (
    EventKeyRequiredError,
    IdempotencyKeyReusedError,
    NotFoundError,
    OutboxFullError,
    OutboxUnavailableError,
    RateLimitedError,
    SessionRequiredError,
    TooManyPendingError,
)
from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.outbox.event import Event
from service.outbox.inngest_id import ENVIRONMENT_HEADER, SEED_HEADER, InngestIds
from service.outbox.keys import IdempotencyKey
from service.outbox.receipt import Receipt
from service.web.intake.event_batch import MAX_BATCH_BYTES, EventBatches
from service.web.intake.event_examples import EVENTS_BODY
from service.web.intake.inngest_intake import InngestIntake
from service.web.openapi.endpoint import Access
from tests.support.made_request import made_request

CRON = User("key", "cron")
GOOD_SEED = "1795647589663,w+OubQLDQDVz3w=="
NOW_MS = 1_795_559_419_447
IDS = InngestIds(bytes(6))
ONE = b'{"name":"a"}'


class Door(NullRecorder):
    """The protocol over an intake, a recorder and keys that a test sets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.keys: list[IdempotencyKey | None] = []
        self.counted: list[tuple[str, dict[str, str]]] = []
        self.errors: list[Exception] = []
        self.refusal: Exception | None = None
        batches = EventBatches(self, self, now_ms=lambda: NOW_MS)
        self._intake = InngestIntake(self, batches, self)  # type: ignore[arg-type]
        [self.route] = self._intake.routes()

    def by_key(self, key: str) -> User | None:
        if self.refusal:
            raise self.refusal
        return CRON if key == "good" else None

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        if self.errors:
            raise self.errors.pop(0)
        self.events += events
        self.keys += keys
        return [Receipt(one.id, seq, NOW_MS, IDS) for seq, one in enumerate(events, 1)]

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        if name == "refused":
            self.counted.append((name, labels))

    async def post(self, body: bytes = ONE, key: str = "good", **headers: str) -> web.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = made_request(body, given, match_info={"key": key})
        answer = await self._intake.post(request)
        assert (answer.content_type, answer.charset) == ("text/plain", "utf-8")
        return answer

    async def said(self, *args: Any, **headers: str) -> dict[str, Any]:
        answer = await self.post(*args, **headers)
        found: dict[str, Any] = json.loads(answer.text or "")
        assert found["status"] == answer.status
        return found


@pytest.fixture
def door() -> Door:
    return Door()


async def test_the_answer_names_each_event_as_inngest_will(door: Door) -> None:
    assert (door.route.method, door.route.path) == ("POST", "/e/{key}")
    answer = await door.post(b'[{"name":"a"},{"name":"b"}]')
    first, second = (IDS.ulid(seq, NOW_MS) for seq in (1, 2))
    assert answer.text == f'{{"ids":["{first}","{second}"],"status":200}}\n'
    assert [(one.name, one.owner, one.meta.environment) for one in door.events] == [
        ("a", "key cron", None),
        ("b", "key cron", None),
    ]


@pytest.mark.parametrize("body", [b"", b"[]"])
async def test_of_no_events_inngest_says_one_empty_id(door: Door, body: bytes) -> None:
    assert await door.said(body) == {"ids": [""], "status": 200}


async def test_the_events_before_a_bad_one_are_taken(door: Door) -> None:
    words = "The event's name must be present"
    assert await door.said(b'[{"name":"a"},{}]') == {
        "ids": [IDS.ulid(1, NOW_MS)],
        "status": 400,
        "error": words,
    }
    assert await door.said(b"{}") == {"ids": [""], "status": 400, "error": words}
    assert len(door.events) == 1
    assert door.counted == []


async def test_an_unknown_key_is_told_so_and_stores_nothing(door: Door) -> None:
    expected = {"ids": [], "status": 401, "error": "Event key not found"}
    assert await door.said(ONE, "bad") == expected
    assert door.events == []


async def test_without_keys_there_is_no_such_path(door: Door) -> None:
    door.refusal = NotFoundError()
    with pytest.raises(NotFoundError):
        await door.post()
    assert door.counted == []


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (RateLimitedError(retry_after_seconds=3), 429, "3"),
        (TooManyPendingError(retry_after_seconds=5), 429, "5"),
        (OutboxFullError(retry_after_seconds=5), 503, "5"),
        (OutboxUnavailableError(), 503, "2"),
        (SessionRequiredError(), 401, None),
        (EventKeyRequiredError(), 401, None),
    ],
)
@pytest.mark.parametrize("is_at_the_door", [True, False])
async def test_a_refusal_has_the_protocol_s_form_and_is_counted(
    door: Door,
    error: Any,
    status: int,
    retry_after: str | None,
    is_at_the_door: bool,  # noqa: FBT001
) -> None:
    if is_at_the_door:
        door.refusal = error
    else:
        door.errors = [error]
    answer = await door.post()
    assert json.loads(answer.text or "") == {"ids": [""], "status": status, "error": str(error)}
    assert (answer.status, answer.headers.get("Retry-After")) == (status, retry_after)
    assert door.counted == [("refused", {"code": error.code})]


async def test_a_body_has_at_most_20_mib(door: Door) -> None:
    assert MAX_BATCH_BYTES == 20 * 1024 * 1024
    assert (await door.said(b" " * MAX_BATCH_BYTES))["status"] == 200
    assert (await door.said(b" " * (MAX_BATCH_BYTES + 1)))["status"] == 413


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("branch-x", "branch-x"),
        ("two words", "two words"),
        ("gr\u00fcn", "gr\u00fcn"),
        ("x" * 255, "x" * 255),
    ],
)
async def test_events_go_to_the_environment_that_is_named(door: Door, sent: str, name: str) -> None:
    await door.said(**{ENVIRONMENT_HEADER: sent})
    assert [one.meta.environment for one in door.events] == [name]


@pytest.mark.parametrize("name", ["x" * 256, "a\tb"])
async def test_an_environment_that_can_t_be_shown_is_refused(door: Door, name: str) -> None:
    answer = await door.said(**{ENVIRONMENT_HEADER: name})
    error = f"{ENVIRONMENT_HEADER} is not a name in printable characters."
    assert (answer, door.events) == ({"ids": [""], "status": 400, "error": error}, [])


async def test_a_key_has_32_environments(door: Door) -> None:
    for number in range(32):
        assert (await door.said(**{ENVIRONMENT_HEADER: f"branch-{number}"}))["status"] == 200
    refused = await door.said(**{ENVIRONMENT_HEADER: "one more"})
    assert refused["status"] == 400
    assert "at most 32 environments" in refused["error"]
    assert (await door.said(**{ENVIRONMENT_HEADER: "branch-7"}))["status"] == 200


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(TRACE, TRACE), ("01" + TRACE[2:], None), (f"00-{'0' * 32}{TRACE[35:]}", None), ("x", None)],
)
async def test_the_trace_of_a_request_is_that_of_its_events(
    door: Door, sent: str, kept: str | None
) -> None:
    await door.said(traceparent=sent)
    assert [one.meta.trace for one in door.events] == [kept]


async def test_an_empty_environment_is_our_own(door: Door) -> None:
    assert (await door.said(**{ENVIRONMENT_HEADER: ""}))["status"] == 200
    assert [one.meta.environment for one in door.events] == [None]


async def test_a_seed_makes_a_request_known_again_for_a_day(door: Door) -> None:
    for _ in range(2):
        await door.said(**{SEED_HEADER: GOOD_SEED})
    first, again = door.keys
    assert first == again
    assert first
    assert first.lifetime_seconds == 86_400


@pytest.mark.parametrize("seed", ["", "x", "0,w+OubQLDQDVz3w==", "1,w+OubQLDQDVz3==", "1" * 20])
async def test_without_a_good_seed_an_event_is_always_new(door: Door, seed: str) -> None:
    await door.said(**{SEED_HEADER: seed})
    assert door.keys == [None]


async def test_other_events_under_a_seed_are_taken_as_others(door: Door) -> None:
    door.errors = [IdempotencyKeyReusedError()]
    assert (await door.said(**{SEED_HEADER: GOOD_SEED}))["ids"] == [IDS.ulid(1, NOW_MS)]
    assert door.keys == [None]
    door.errors = [IdempotencyKeyReusedError(), IdempotencyKeyReusedError()]
    assert (await door.said(**{SEED_HEADER: GOOD_SEED}))["status"] == 422


def test_its_description_has_an_example_of_each_answer() -> None:
    [endpoint] = Door()._intake.endpoints()
    assert (endpoint.method, endpoint.path) == ("POST", "/e/{key}")
    examples = {status: answer.example for status, answer in endpoint.answers.items()}
    assert examples[200] == {"ids": ["01KB08Z4Q0XW5M7T3Y8S000017"], "status": 200}
    assert set(examples) == {200, 400, 401, 408, 413, 429, 503}
    for status, example in examples.items():
        assert example["status"] == status
        assert status == 200 or (example["ids"] == [""] and example["error"])
    with_retry = {status for status, answer in endpoint.answers.items() if answer.headers}
    assert with_retry == {429, 503}
    assert all(answer.is_json_in_text for answer in endpoint.answers.values())
    assert {answer.content_type for answer in endpoint.answers.values()} == {"text/plain"}


def test_its_description_says_what_a_request_has_and_who_may_make_it() -> None:
    [endpoint] = Door()._intake.endpoints()
    places = {parameter.name: parameter.place for parameter in endpoint.parameters}
    assert places == {"key": "path", ENVIRONMENT_HEADER: "header", SEED_HEADER: "header"}
    assert (endpoint.access, endpoint.body) == (Access.ANYBODY, EVENTS_BODY)
    assert tuple(endpoint.errors) == (NotFoundError,)
