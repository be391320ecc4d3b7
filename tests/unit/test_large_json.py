"""What is large is read a piece at a time, and taken or refused as what is small is."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.identity.user import User
from inngest_outbox.outbox.storable import MAX_DEPTH
from inngest_outbox.web.intake import lenient_json
from inngest_outbox.web.intake.incoming import read_events
from inngest_outbox.web.intake.lenient_json import (
    LARGE_BYTES,
    BadEventError,
    elements,
    faults,
    fields_of,
    large_fields_of,
)

NAMES = frozenset({"name", "id", "data", "user"})
OBJECTS = [
    b'{"name":"a"}',
    b' {"NAME" : "a" , "more":[1,{"name":"b"}],"data":{"x":[{},[]]} } ',
    b'{"name":"a","name":"b"}',
    b'{"\\u006e\\u0061\\u006d\\u0065":"a","x\\\\":"\\"},{"}',
    b'{"data":{"x":"\\\\\\"]},[{\\\\"},"id":"1"}',
    b'{"id":"\\ud800 \\\\ud800 \\ud83d\\ude00 \xff"}',
    rb'{"id":"\udc00"}',
    '{"u\u017fer":1}'.encode(),
    b'{"' + b"k" * 100 + b'":1,"id":"2"}',
    b"{}",
]
FAULTY = [b'{"name":"a"', b'{"name" "a"}', b'{"name":}', b'{"a":1 "name":"b"}', b'{"name":"a"}}']
FAULTY += [b'{"name":"a"}\xe2\x82']  # half a character
ARRAYS = [
    b"[]",
    b" [ ] ",
    b'[{"name":"a"},{"name":"b]}"}]',
    b'[ {"x":[1,[2,3]]} , {"y":"\\\\"} ]',
    b'[{"name":"a"},{"name":"b"}}',
    b'[{"name":"a"},{"name":"b"}',
]
BAD_ARRAYS = [b'[{"name":"a"},]', b'[{"name":"a"},,{}]', b"[,]", b'[,{"name":"a"}]']


def result(reading: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(reading)
        except StopIteration as ended:
            return ended.value


def read(found: Iterator[bytes | None]) -> tuple[list[Any], bool]:
    """The elements, and true when a fault ended them."""
    read: list[Any] = []
    try:
        read.extend(msgspec.json.decode(one) for one in found if one is not None)
    except BadEventError:
        return read, True
    return read, False


@pytest.fixture(params=[1, 3, 16_384])
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient_json, "_PIECE_BYTES", request.param)


@pytest.mark.usefixtures("piece_bytes")
@pytest.mark.parametrize("raw", OBJECTS)
def test_the_fields_of_a_large_object_are_those_of_a_small_one(raw: bytes) -> None:
    raw = raw.strip()
    assert result(large_fields_of(raw, NAMES)) == fields_of(raw, NAMES)


@pytest.mark.usefixtures("piece_bytes")
@pytest.mark.parametrize("raw", FAULTY)
def test_a_large_object_that_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        result(large_fields_of(raw, NAMES))


@pytest.mark.usefixtures("piece_bytes")
@pytest.mark.parametrize("body", ARRAYS + BAD_ARRAYS)
def test_the_elements_of_a_large_array_are_those_of_a_small_one(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = read(elements(body))
    monkeypatch.setattr(lenient_json, "_SPLIT_BYTES", 0)
    monkeypatch.setattr(lenient_json, "LARGE_BYTES", 0)
    assert read(elements(body)) == small
    assert small[1] is (body in BAD_ARRAYS)


SIZE = 1_500_000
ATTACKS = {  # a body, and how many pieces it has at least
    "escapes": (b'{"name":"a","data":{"x":"' + b"\\n" * (SIZE // 2) + b'\\ud800"}}', 450),
    "surrogates": (b'{"name":"a","data":{"x":"' + b"\\ud800" * (SIZE // 6) + b'"}}', 330),
    "not UTF-8": (b'{"name":"a","data":{"x":"' + b"\xff" * (SIZE // 3) + b'"}}', 210),
    "fields": (b'{"Name":"a"' + b"".join(b',"%x":1' % n for n in range(SIZE // 9)) + b"}", 190),
    "brackets": (b'{"name":"a","data":{"x":[' + b"[]," * (SIZE // 3) + b"1]}}", 90),
    "array": (b'[{"name":"a","data":{"x":[' + b"[]," * (SIZE // 3) + b"1]}}}", 180),
    "space": (b" " * SIZE + b'{"name":"a"}', 90),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_others_run_between_the_pieces_of_a_large_event(attack: str) -> None:
    body, pieces = ATTACKS[attack]
    found = list(read_events(body, User("key", "cron"), 1_800_000_000_000))
    assert sum(one is not None for one in found) == 1
    assert found.count(None) >= pieces


@pytest.mark.parametrize("text", [b'"' * SIZE, b'"" ' * SIZE, b'{"name":"a"}' + b'""' * SIZE])
def test_what_is_no_event_is_looked_at_as_far_as_an_event_may_reach(text: bytes) -> None:
    body = (b"[" + text * 5)[:5_000_000]
    last = 0
    with pytest.raises(BadEventError, match="larger than 3145728 bytes"):
        for last, _ in enumerate(elements(body)):  # noqa: B007
            pass
    assert last <= 3_145_728 / 16_384 + 2


TEXT = st.text(st.sampled_from('[]{}",:\\ae1E9+-.\n\u00e9'), max_size=8)
NUMBERS = st.sampled_from(
    ["1", "-0.5", "1e308", "1.5E-400", "1e309", "-2E+400", "9" * 308, "9" * 309]
)
VALUES = st.recursive(
    TEXT.map(json.dumps) | NUMBERS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
        | st.dictionaries(TEXT.map(json.dumps), inner, max_size=4).map(
            lambda fields: "{" + ",".join(f"{key} :{one}" for key, one in fields.items()) + "}"
        )
    ),
    max_leaves=12,
)


def found(value: bytes, piece_bytes: int = 64 * 1024) -> list[str]:
    return [words for words in faults(value, piece_bytes) if words]


def numbers_of(decoded: object) -> Iterator[float]:
    if isinstance(decoded, float):
        yield decoded
    for one in decoded if isinstance(decoded, list) else ():
        yield from numbers_of(one)
    for one in decoded.values() if isinstance(decoded, dict) else ():
        yield from numbers_of(one)


@given(VALUES, st.integers(1, 12))
def test_what_a_decoder_refuses_is_refused_wherever_the_pieces_end(value: str, size: int) -> None:
    is_refused = any(map(math.isinf, numbers_of(json.loads(value, parse_int=float))))
    assert bool(found(f"[{value}]".encode(), size)) is is_refused


@pytest.mark.parametrize("size", [7, 64 * 1024])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"[":', b"}")])
def test_a_value_has_at_most_500_levels(opens: bytes, closes: bytes, size: int) -> None:
    def nested(levels: int) -> bytes:
        inner = opens * (levels - 1) + b"1" + closes * (levels - 1)
        return b"[" + b",".join([inner] * 3) + b"]"

    assert found(nested(MAX_DEPTH), size) == []
    assert found(nested(MAX_DEPTH + 1), size) == [
        f"An event is nested more than {MAX_DEPTH} levels deep"
    ]


@pytest.mark.parametrize("data", [b"[%b]", b'"%b"'])
def test_large_data_must_be_an_object(data: bytes) -> None:
    values = data % b",".join([b"1"] * LARGE_BYTES)
    with pytest.raises(BadEventError, match="must be an object"):
        list(read_events(b'{"name":"a","data":%b}' % values, User("key", "a"), 1))
