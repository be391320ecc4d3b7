"""Whatever is accepted here, the Event API accepts; whatever it would refuse, is refused here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inngest_outbox.dev.fake_inngest.events import read_events
from inngest_outbox.documents.document_name import Documents, check_document_name
from inngest_outbox.errors import RefusedError
from inngest_outbox.event_types.declaration import check_event_name
from inngest_outbox.event_types.declared_type import make_event_type
from inngest_outbox.event_types.event_type import EventType
from inngest_outbox.event_types.types_file import load_event_types
from inngest_outbox.identity.user import User
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import encode_event
from inngest_outbox.web.intake.event_route import EventRoute

[DOCUMENTS_EVENT] = load_event_types(None)
ADA = User(issuer="dev", id="u-1", email="ada@example.com", name="Ada")
TEXT = st.text() | st.text(st.characters(codec=None, categories=None))


class NoSettings:
    def __init__(self, settings: bytes = b"{}") -> None:
        self._settings = msgspec.Raw(settings)

    async def effective(self, user: User) -> msgspec.Raw:
        return self._settings


async def nothing(name: str) -> dict[str, object]:
    return {}


def event_type(settings: bytes = b"{}") -> EventType:
    documents = Documents(region="eu-west-1", bucket="documents", look_up=nothing, scope="any")
    return make_event_type(DOCUMENTS_EVENT, documents, NoSettings(settings))  # type: ignore[arg-type]


def taken(raw: bytes, user: User = ADA, settings: bytes = b"{}") -> bytes | None:
    """The event of an accepted body, None of a refused one."""
    kind = event_type(settings)
    route = EventRoute(kind, None, None, NullRecorder())  # type: ignore[arg-type]
    try:
        body = route.read(raw)
    except RefusedError:
        return None
    data = asyncio.run(kind.data(body, user))
    return encode_event(kind.name, data, user, int(time.time() * 1000)).payload


def accepted_by_the_api(payload: bytes) -> dict[str, object]:
    reading = read_events(b"[" + payload + b"]")
    assert reading.error is None
    [event] = reading.events
    return json.loads(event.raw)


@given(TEXT)
@example("\ud800")
@example("a/../b")
@example("\u2028")
@example("\ufffe")
def test_a_name_that_is_taken_arrives_unchanged(name: str) -> None:
    try:
        check_document_name(name)
    except RefusedError:
        assert taken(json.dumps({"documentName": name}).encode()) is None
        return
    payload = taken(json.dumps({"documentName": name}).encode())
    assert payload is not None
    assert accepted_by_the_api(payload)["data"]["documentName"] == name  # type: ignore[index]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
BODIES = (
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps({"documentName": value}).encode())
    | st.tuples(st.dictionaries(TEXT, JSON, max_size=2), TEXT).map(
        lambda two: json.dumps({**two[0], "documentName": two[1]}).encode()
    )
    | st.tuples(TEXT, st.binary(max_size=4), st.integers(0, 30)).map(
        lambda three: _spoiled(json.dumps({"documentName": three[0]}).encode(), *three[1:])
    )
)


def _spoiled(body: bytes, noise: bytes, at: int) -> bytes:
    return body[:at] + noise + body[at:]


@given(BODIES)
@example(b'{"documentName": ' + b"[" * 5000)
@example(b'{"documentName": "a", "documentName": "b"}')
@example(b'\xef\xbb\xbf{"documentName": "a"}')
def test_any_body_is_refused_or_becomes_an_event_that_the_api_takes(body: bytes) -> None:
    payload = taken(body)
    if payload is not None:
        event = accepted_by_the_api(payload)
        assert event["name"] == "documents/aws.index"
        assert isinstance(json.loads(body), dict)


@given(
    st.builds(
        User,
        id=st.text(min_size=1),
        email=st.none() | st.text(),
        name=st.none() | st.text(),
    ),
    st.dictionaries(st.text(), JSON.filter(lambda value: "\\ud" not in json.dumps(value))),
)
def test_any_user_and_any_settings_make_an_event_that_the_api_takes(
    user: User, settings: dict[str, object]
) -> None:
    try:
        encoded = msgspec.json.encode(settings)
    except UnicodeEncodeError:
        return
    payload = taken(b'{"documentName": "a"}', user, encoded)
    assert payload is not None
    event = accepted_by_the_api(payload)
    assert event["user"] == {"id": user.id, "email": user.email, "name": user.name}
    assert msgspec.json.encode(event["data"]["appSettings"]) == encoded  # type: ignore[index]


@given(st.text() | st.sampled_from(["inngest/x", "INNGEST/x", "Inngest/", "", "x" * 257]))
def test_an_event_name_that_the_api_refuses_can_not_be_declared(name: str) -> None:
    reading = read_events(msgspec.json.encode([{"name": name, "data": {}}]))
    if reading.error is None:
        with contextlib.suppress(ValueError):
            assert check_event_name(name) == name
        return
    with pytest.raises(ValueError, match="event name"):
        check_event_name(name)
