"""The documentation's example of an event type in Python, run as it stands there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from inngest_outbox.errors import InvalidFieldError, InvalidJsonError
from inngest_outbox.event_types.event_type import EventType
from inngest_outbox.identity.user import User
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.model import ClaimRequest
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from inngest_outbox.web.intake.event_route import EventRoute

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "event-types.md"


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EventType:
    marked = PAGE.read_text(encoding="utf-8").split("<!-- check: event type -->\n```python\n")[1]
    code = marked.split("```")[0]
    (tmp_path / "greetings.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "greetings", raising=False)
    return importlib.import_module("greetings").GREETED


async def ada(request: web.Request) -> User:
    return User("dev", "u-1", name="Ada")


async def test_the_declared_event_type_is_accepted_and_waits_for_delivery(
    declared, aiohttp_client, tmp_path
):
    limits = {"max_pending": 10, "max_pending_per_user": 10}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        app = web.Application()
        app.add_routes(EventRoute(declared, outbox.intake, ada, NullRecorder()).routes())
        client = await aiohttp_client(app)
        answer = await client.post("/api/greet", json={"greeting": "Hello"})
        assert answer.status == 200
        batch = await outbox.queue.claim(ClaimRequest(10, 10_000, 30))
    event = msgspec.json.decode(batch.payloads)
    assert event["name"] == "people/greeted"
    assert event["data"] == {"text": "Hello, Ada"}


@pytest.mark.parametrize("body", [b'{"greeting": ""}', b'{"greeting": 1}', b"{}"])
async def test_what_its_body_does_not_allow_is_refused(declared, body):
    route = EventRoute(declared, None, ada, NullRecorder())
    with pytest.raises(InvalidFieldError):
        route.read(body)


@pytest.mark.parametrize(
    "body", [b'{"greeting": "Hi", "other": "\xff"}', b'{"greeting": "Hi", "\xed\xa0\x80": 1}']
)
async def test_a_body_that_is_not_utf8_is_refused_also_where_nothing_is_read_of_it(declared, body):
    route = EventRoute(declared, None, ada, NullRecorder())
    with pytest.raises(InvalidJsonError):
        route.read(body)
