"""Where an event of a client stops being one: its size, depth, numbers, form and meta."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import MAX_EVENT_BYTES, with_id
from inngest_outbox.web.intake import incoming
from inngest_outbox.web.intake.incoming import IncomingEvent, checked_meta, read_events
from inngest_outbox.web.intake.lenient_json import LARGE_BYTES, BadEventError

CRON = User("key", "cron")
NOW_MS = 1_795_559_419_447


def read(body: bytes) -> list[IncomingEvent | None]:
    return list(read_events(body, CRON, NOW_MS))


def payload(body: bytes) -> bytes:
    [found] = [one for one in read(body) if one]
    return found.event.payload


def refusal(body: bytes) -> str:
    with pytest.raises(BadEventError) as refused:
        read(body)
    return str(refused.value)


def filled(body: bytes, size: int) -> bytes:
    """`body` with a string for its % as gives it this size; it looks like JSON in part."""
    left = size - len(body) + 2
    return body % (b"x[{1e400" * (left // 8 + 1))[:left]


def test_an_event_may_have_3_mib_as_it_comes() -> None:
    body = b'{"name":"a","more":"%b"}'
    assert len(payload(filled(body, MAX_EVENT_BYTES))) < 100
    too_large = f"An event is larger than {MAX_EVENT_BYTES} bytes"
    assert refusal(filled(body, MAX_EVENT_BYTES + 1)) == too_large


@pytest.mark.parametrize("given_id", ["mine", ""])
def test_an_event_may_have_3_mib_as_it_is_sent(given_id: str) -> None:
    body = b'{"id":"%b","name":"a","data":{"x":"%%b"}}' % given_id.encode()
    wire_id = given_id or "01HF7YAT00AAAAAAAAAAAAAAAA"
    added = len(with_id(payload(body), wire_id)) - len(body)
    sent = with_id(payload(filled(body, MAX_EVENT_BYTES - added)), wire_id)
    assert len(sent) == MAX_EVENT_BYTES
    assert "larger than" in refusal(filled(body, MAX_EVENT_BYTES - added + 1))


@pytest.mark.parametrize("field", [b"data", b"user"])
@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1])
@pytest.mark.parametrize("value", [b"1e400", b"1E400", b"8" * 309, b"[" * 501 + b"]" * 501])
def test_a_value_of_any_size_is_looked_through(field: bytes, size: int, value: bytes) -> None:
    text = filled(b'{"y":"%%b","x":%b}' % value, size)
    assert refusal(b'{"name":"a","%b":%b}' % (field, text))


def test_a_large_value_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(incoming, "decode_untyped", lambda text: sizes.append(len(text)) or {})
    for size in (LARGE_BYTES, LARGE_BYTES + 1):
        read(b'{"name":"a","data":%b}' % filled(b'{"x":"%b"}', size))
    assert sizes == [LARGE_BYTES]


@pytest.mark.parametrize("field", [b"data", b"more"])
@pytest.mark.parametrize("closes", [b"1" + b"}" * 500_001, b""])
def test_an_event_that_is_nested_beyond_all_measure_is_refused(field: bytes, closes: bytes) -> None:
    body = b'{"name":"a","%b":' % field + b'{"a":' * 500_000 + closes
    assert refusal(body) == "An event is nested more than 500 levels deep"


@pytest.mark.parametrize("value", [b"1" * 309, b"-" + b"1" * 309, b'"%b"' % (b"1" * 400)])
def test_a_number_of_many_digits_that_a_float_holds_is_taken(value: bytes) -> None:
    data = b'{"name":"a","data":{"x":%b}}' % value
    assert json.loads(payload(data))["data"] == {"x": json.loads(value)}


def words(values: Iterable[bytes], sentence: str) -> list[tuple[bytes, str]]:
    return [(value, sentence) for value in values]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        *words([b"[1]", b"[null]", b'["a"]', b"[[]]"], "An event must be an object"),
        *words(
            [b'{"name":1}', b'{"name":"a","id":[]}', b'{"name":"a","ts":1e30}', b'{"v":1}'],
            "A field of the event has a wrong type or is out of range",
        ),
        *words([b'{"name":"a",}', b'{"name"', b"{"], "An event is not valid JSON"),
        *words([b"{}", b'{"name":""}'], "The event's name must be present"),
        *words(
            [b'{"name":"%b"}' % (b"n" * 4_097), b'{"name":"a","id":"%b"}' % (b"i" * 4_097)],
            "The event's name or id is longer than 4096 characters",
        ),
        (b'{"name":"a","data":{"x":%b}}' % (b"9" * 309), "A number is out of range"),
        (b'{"name":"a","data":1}', "The event's data must be an object or null"),
        (b'{"name":"a","user":[]}', "The event's user must be an object or null"),
        (
            b'{"name":"a","ts":1}',
            "The event's ts must be in milliseconds, between 1980 and 2100",
        ),
        (
            b'{"name":"a","meta":{"x":"%b"}}' % (b"x" * 65_536),
            "The event's meta is larger than 65536 bytes",
        ),
        (
            b'{"name":"a","meta":{"propagated_sessions":{"a":null}}}',
            "An inherited session of the event's meta is null",
        ),
        (b"1", "The body is not an event object or an array of event objects in JSON"),
        (b'{"name":"inngest/a"}', "The event's name is reserved: inngest/ is Inngest's own prefix"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: bytes, sentence: str) -> None:
    assert refusal(body) == sentence


@pytest.mark.parametrize("ts", [315_532_800_000, 4_102_444_800_000])
def test_a_time_is_between_1980_and_2100(ts: int) -> None:
    assert json.loads(payload(b'{"name":"a","ts":%d}' % ts))["ts"] == ts
    outside = ts - 1 if ts < NOW_MS else ts + 1
    assert "between 1980 and 2100" in refusal(b'{"name":"a","ts":%d}' % outside)


@pytest.mark.parametrize("name", ["inngest", "\u0130nngestx", "inngest.x/", "xinngest/"])
def test_only_inngest_s_own_prefix_is_reserved(name: str) -> None:
    assert json.loads(payload(json.dumps({"name": name}).encode()))["name"] == name


def test_a_name_and_an_id_have_4096_characters_whatever_their_bytes() -> None:
    long = "\u0130" * 4_096
    assert json.loads(payload(json.dumps({"name": long, "id": long}).encode()))["name"] == long


@pytest.mark.parametrize("size", [100, LARGE_BYTES + 1])
def test_what_is_not_unicode_is_replaced_in_a_value_of_any_size(size: int) -> None:
    body = b'{"name":"a","data":%b}' % filled(b'{"y":"%b","x":"\xff\xc3\xa9"}', size)
    assert json.loads(payload(body))["data"]["x"] == "\ufffd\u00e9"


def checked(meta: str | dict[str, Any]) -> Any:
    """What is left of the meta; None where it is left out."""
    text = meta if isinstance(meta, str) else json.dumps(meta)
    found = checked_meta(msgspec.Raw(text.encode()))
    return None if found is msgspec.UNSET else json.loads(bytes(found))


def meta_refusal(meta: str | dict[str, Any]) -> str:
    with pytest.raises(BadEventError) as refused:
        checked(meta)
    return str(refused.value)


def test_both_layers_are_kept_and_all_else_goes() -> None:
    meta = {"Sessions": {"a": "x"}, "PROPAGATED_SESSIONS": {"b": 1.5}, "more": 1}
    assert checked(meta) == {"sessions": {"a": "x"}, "propagated_sessions": {"b": 1.5}}
    for without in ("null", {}, {"more": 1}):
        assert checked(without) == {}


@pytest.mark.parametrize(
    "meta",
    [
        {"sessions": None, "propagated_sessions": {"a": "x"}},
        {"sessions": {"a": None}, "propagated_sessions": {"a": "x"}},
        {"sessions": {"a": "x"}, "propagated_sessions": None},
        {"sessions": {}, "propagated_sessions": {}},
    ],
)
def test_a_null_takes_inherited_sessions_away_and_stays(meta: dict[str, Any]) -> None:
    assert checked(meta) == meta


def of(count: int, value: object = "x") -> dict[str, object]:
    return {f"key-{at}": value for at in range(count)}


def test_an_event_has_at_most_five_sessions_of_its_own() -> None:
    for meta in ({"sessions": of(5)}, {"sessions": of(6, None)}):
        assert checked(meta) == meta
    inherited = {"sessions": of(5), "propagated_sessions": of(9)}
    assert checked(inherited) == inherited
    assert meta_refusal({"sessions": of(6)}) == "The event's meta has more than 5 sessions"


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
def test_a_session_is_a_string_or_a_number(layer: str) -> None:
    for value in ("x", "\u00e9", 0, -1, 9, 10**30):
        assert checked({layer: {"a": value}}) == {layer: {"a": value}}
    sentence = "A session of the event's meta is not a string or a number"
    for odd in (True, False, [], {}, [1]):
        assert meta_refusal({layer: {"a": odd}}) == sentence


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
@pytest.mark.parametrize("text", ["x", "\u00e9", '"'])
def test_a_key_has_1_to_128_bytes_and_an_id_1_to_512(layer: str, text: str) -> None:
    key, session_id = (text * (most // len(text.encode())) for most in (128, 512))
    assert checked({layer: {key: session_id}}) == {layer: {key: session_id}}
    sentence = "A session of the event's meta has an empty or a long key or id"
    for bad in ({key + "y": "x"}, {"a": session_id + "y"}, {"": "x"}, {"a": ""}):
        assert meta_refusal({layer: bad}) == sentence
    assert checked('{"sessions":{"a":%s}}' % ("1" * 512))
    assert meta_refusal('{"sessions":{"a":%s}}' % ("1" * 513)) == sentence


@pytest.mark.parametrize("meta", ["[]", "1", '{"sessions":[]}', '{"propagated_sessions":"x"}'])
def test_a_meta_and_its_layers_are_objects(meta: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        checked(meta)
