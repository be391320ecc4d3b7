"""What is accepted here, Inngest accepts, and the other way round."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inngest_outbox.dev.fake_inngest.events import read_events as read_as_inngest
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import Event, with_id
from inngest_outbox.outbox.storable import storable
from inngest_outbox.web.intake.incoming import read_events
from inngest_outbox.web.intake.lenient_json import MAX_EVENTS, BadEventError
from tests.support.fuzzed_events import fuzzed_bodies

CRON = User("key", "cron")
NOW_MS = 1_795_559_419_447
ULID = "01HF7YAT00AAAAAAAAAAAAAAAA"


def taken(body: bytes) -> tuple[list[Event], str | None]:
    events: list[Event] = []
    reading = read_events(body, CRON, NOW_MS)
    try:
        for incoming in reading:
            if incoming:
                events.append(incoming.event)  # noqa: PERF401  (an error must not drop them)
    except BadEventError as error:
        return events, str(error)
    return events, None


def one(body: object) -> dict[str, Any]:
    [event], error = taken(json.dumps(body).encode())
    assert error is None
    return json.loads(event.payload)  # type: ignore[no-any-return]


def test_an_event_gets_a_time_and_keeps_all_that_inngest_knows() -> None:
    known = {"name": "a/b", "data": {"x": [1, 2.5, None]}, "user": {"id": 1}, "v": "2"}
    assert one({**known, "other": 1}) == {**known, "ts": NOW_MS}
    meta = {"Sessions": {"a": "x"}, "more": 1}
    kept = {**known, "ts": NOW_MS, "meta": {"sessions": {"a": "x"}}}
    assert one({**known, "meta": meta}) == one({**known, "Meta": meta}) == kept
    for empty in ({"id": ""}, {"ts": 0}):
        assert one({**known, **empty}) == {**known, "ts": NOW_MS}


def test_a_client_s_id_and_time_are_kept_and_the_row_has_its_own() -> None:
    [event], _ = taken(b'{"name":"a","id":"mine","ts":1700000000000}')
    wire = json.loads(event.payload)
    assert ("id" in wire, wire["ts"]) == (False, 1_700_000_000_000)
    assert (event.meta.wire_id, event.accepted_at_ms) == ("mine", NOW_MS)
    assert event.meta.ts_ms == 0  # it is over
    [later], _ = taken(b'{"name":"a","ts":1900000000000}')
    assert later.meta.ts_ms == 1_900_000_000_000
    assert event.id != "mine"
    now, _ = taken(b'[{"name":"a","sendat":1900000000000},{"name":"a","sendAt":1900000000000}]')
    assert [one.meta.due_at_ms for one in now] == [0, 0]


def test_what_no_store_can_keep_is_replaced_in_the_data_and_in_the_name_that_is_shown() -> None:
    text = b'[{"name":"a\\u0000b","data":{"x":"\\ud800 \\ud83d\\ude00"}}]'
    [event], error = taken(text)
    assert error is None
    sent = json.loads(event.payload)
    assert (event.name, sent["name"]) == ("a\ufffdb", "a\x00b")
    assert sent["data"] == {"x": "\ufffd \U0001f600"}


def test_data_is_nested_at_most_500_levels_deep() -> None:
    for depth, is_taken in ((500, True), (501, False), (900, False)):
        data = b'{"a":' * depth + b"1" + b"}" * depth
        events, _ = taken(b'{"name":"a","data":' + data + b"}")
        assert bool(events) is is_taken
    for deep in (b"[" * 100_000, b'[{"name":"a","data":' + b'{"a":' * 100_000):
        events, error = taken(deep)
        assert (events, bool(error)) == ([], True)


@pytest.mark.parametrize("count", [MAX_EVENTS + 1, 400_001])
def test_of_a_crowd_of_events_no_more_is_kept_than_a_request_may_have(count: int) -> None:
    crowd = b"[" + b",".join([b'{"name":"a"}'] * count) + b"]"
    tracemalloc.start()
    try:
        events, error = taken(crowd)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(events), error) == (MAX_EVENTS, "A request takes at most 5000 events")
    assert peak_bytes < 4 * 400_000 * len(b'{"name":"a"},')


def test_a_large_body_of_few_events_is_read_whole() -> None:
    event = b'{"name":"a","data":{"x":"' + b"y" * 1_000_000 + b'"}}'
    assert len(taken(b"[" + b",".join([event] * 6) + b"]")[0]) == 6


def test_an_error_holds_no_input() -> None:
    for body in fuzzed_bodies(7, 300):
        error = taken(body.replace(b"a/b", b"SECRET").replace(b"1", b"77"))[1]
        assert not error or ("SECRET" not in error and "77" not in error)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["a", "a/b", "", "inngest/x", "INNGEST/x"]) | _JSON,
    "id": _TEXT | _JSON,
    "ts": st.sampled_from([0, 1, 1_700_000_000_000, 10**13]) | _JSON,
    "data": st.dictionaries(_TEXT, _JSON, max_size=3) | _JSON,
    "user": st.dictionaries(_TEXT, _JSON, max_size=2) | _JSON,
    "v": _TEXT | _JSON,
    "more": _JSON,
}
_EVENT = st.fixed_dictionaries({}, optional=_FIELDS) | st.fixed_dictionaries(
    {"name": st.just("a/b")},
    optional={field: values for field, values in _FIELDS.items() if field != "name"},
)
_BODY = (
    st.lists(_EVENT | _JSON, max_size=5).map(lambda events: json.dumps(events).encode())
    | _EVENT.map(lambda event: json.dumps(event).encode())
    | st.binary(max_size=20)
    | st.tuples(st.lists(_EVENT, max_size=3), st.binary(max_size=8)).map(
        lambda parts: json.dumps(parts[0]).encode()[:-1] + parts[1]
    )
)


def compare(body: bytes) -> None:
    events, error = taken(body)
    theirs = read_as_inngest(body)
    assert (len(events), bool(error)) == (len(theirs.events), theirs.error is not None), body
    wire = [with_id(event.payload, event.meta.wire_id or ULID) for event in events]
    again = read_as_inngest(b"[" + b",".join(wire) + b"]")
    assert (again.error, len(again.events)) == (None, len(events)), body
    for direct, sent in zip(theirs.events, again.events, strict=True):
        assert sent.name == direct.name
        assert sent.id == (storable(direct.id) or ULID)
        assert sent.ts == (direct.ts or NOW_MS)
        ours, their = (msgspec.json.decode(some) or {} for some in (sent.data, direct.data))
        assert ours == their, body


@settings(max_examples=4 * settings().max_examples)
@given(_BODY)
def test_as_much_is_taken_as_inngest_takes_and_with_the_same_content(body: bytes) -> None:
    compare(body)


def test_a_number_of_any_length_that_inngest_ignores_is_ignored_in_a_broken_body_too() -> None:
    compare(b'[{"name":"a","more":%b}}' % (b"9" * 5000))


@pytest.mark.parametrize("pad", range(4))
def test_an_escape_is_whole_wherever_a_piece_of_a_large_event_ends(pad: int) -> None:
    compare(b'{"name":"a","more":1,"data":{"x":"%b%b"}}' % (b"y" * pad, rb"\\\"" * 30_000))


def test_of_fuzzed_requests_as_much_is_taken_as_inngest_takes() -> None:
    for body in fuzzed_bodies(1, 2000):
        compare(body)
