"""The headers of POST /e/{key} that say something of all events of a request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.outbox.event import Event
from service.outbox.inngest_id import ENVIRONMENT_HEADER, InngestIds
from service.outbox.keys import IdempotencyKey, Receipt
from service.web.intake.event_batch import EventBatches
from service.web.intake.inngest_intake import InngestIntake
from tests.support.made_request import made_request

CRON = User("key", "cron")
NOW_MS = 1_795_559_419_447
IDS = InngestIds(bytes(6))
ONE = b'{"name":"a"}'


class Door(NullRecorder):
    """The protocol over an intake, a recorder and keys that a test sets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        batches = EventBatches(self, self, now_ms=lambda: NOW_MS)
        self._intake = InngestIntake(self, batches, self)  # type: ignore[arg-type]

    def by_key(self, key: str) -> User:
        return CRON

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        self.events += events
        return [Receipt(one.id, seq, NOW_MS, IDS) for seq, one in enumerate(events, 1)]

    async def said(self, **headers: str) -> dict[str, Any]:
        request = made_request(ONE, headers, match_info={"key": "good"})
        answer = await self._intake.post(request)
        found: dict[str, Any] = json.loads(answer.text or "")
        assert found["status"] == answer.status
        return found


@pytest.fixture
def door() -> Door:
    return Door()


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
    assert [(one.meta.trace, one.meta.wire_id) for one in door.events] == [(kept, "")]


async def test_an_empty_environment_is_our_own(door: Door) -> None:
    assert (await door.said(**{ENVIRONMENT_HEADER: ""}))["status"] == 200
    assert [one.meta.environment for one in door.events] == [None]
